package train

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// These tests cover what a run does in one process. That a killed run continues bit for bit is
// tested on the program, in cmd/sambatrain.

// TestPretrain checks what a finished run leaves behind and reports.
func TestPretrain(t *testing.T) {
	r := recipe(t, "sample.tokens=5", "sample.prompt=ab")
	res, err := Pretrain(t.Context(), r, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if res.Steps != 6 || res.Tokens != 6*2*16 || res.Run != r.Run.Out || res.Parameters == 0 {
		t.Errorf("%+v", res)
	}
	if !strings.HasPrefix(res.Sample, "ab") {
		t.Errorf("sample %q does not go on from its prompt", res.Sample)
	}
	if text, err := os.ReadFile(filepath.Join(r.Run.Out, SampleFile)); err != nil || string(text) != res.Sample {
		t.Errorf("%s holds %q (%v), reported was %q", SampleFile, text, err, res.Sample)
	}
	var steps, vals, saves []int
	for _, rec := range records(t, r.Run.Out) {
		switch {
		case rec.Kind == runlog.KindTrain:
			steps = append(steps, rec.Step)
			if rec.Train.Tokens != int64(rec.Step)*32 {
				t.Errorf("step %d counts %d tokens", rec.Step, rec.Train.Tokens)
			}
			if want := r.Optim.LR(int64(rec.Step)-1, 6); rec.Train.LR != want {
				t.Errorf("step %d had rate %v, want %v", rec.Step, rec.Train.LR, want)
			}
			if rec.Step == 6 && rec.Train.Loss != res.TrainLoss {
				t.Errorf("training loss %v, reported %v", rec.Train.Loss, res.TrainLoss)
			}
		case rec.Kind == runlog.KindVal:
			vals = append(vals, rec.Step)
			if rec.Step == 6 && (rec.Val.Loss != res.ValLoss || rec.Val.BitsPerByte != res.ValBitsPerByte) {
				t.Errorf("validation %+v, reported %+v", rec.Val, res)
			}
		case rec.Event.Name == runlog.EventCheckpoint:
			saves = append(saves, rec.Step)
		}
	}
	if !slices.Equal(steps, []int{1, 2, 3, 4, 5, 6}) || !slices.Equal(vals, []int{3, 6}) || !slices.Equal(saves, []int{2, 4, 6}) {
		t.Errorf("steps %v, validations %v, checkpoints %v", steps, vals, saves)
	}
	list, err := checkpoint.List(r.Run.Out)
	if err != nil || len(list) != 3 {
		t.Errorf("%d checkpoints (%v)", len(list), err)
	}
	loaded, err := LoadConfig(r.Run.Out)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := r.YAML()
	if got, _ := loaded.YAML(); string(got) != string(want) {
		t.Errorf("the run's config reads back as\n%s\nwant\n%s", got, want)
	}
	// A second run must not start in the same folder.
	if _, err := Pretrain(t.Context(), r, quiet()); err == nil || !strings.Contains(err.Error(), "sambatrain resume "+r.Run.Out) {
		t.Errorf("pretrain into a run: %v", err)
	}
	// Resuming the finished run reports it again.
	again, err := Resume(t.Context(), r.Run.Out, quiet())
	if err != nil {
		t.Fatal(err)
	}
	again.Seconds = res.Seconds
	if !reflect.DeepEqual(again, res) {
		t.Errorf("%+v, then %+v", res, again)
	}
}

// TestBitsPerByte: a step's bits per byte are those of its targets, whose ends of text have no bytes.
func TestBitsPerByte(t *testing.T) {
	r := recipe(t, "train.steps=4", "eval.every=0")
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	set, err := data.Open(t.Context(), r.Data, data.Train)
	if err != nil {
		t.Fatal(err)
	}
	rows, width := r.Train.BatchSize, r.Data.SeqLen+1
	block := make([]int32, rows*width)
	ends := 0
	for _, rec := range records(t, r.Run.Out) {
		if rec.Kind != runlog.KindTrain {
			continue
		}
		if err := set.Batch(int64(rec.Step)-1, rows, block); err != nil {
			t.Fatal(err)
		}
		count, bytes := 0, 0
		for i, id := range block {
			if i%width == 0 {
				continue // the first token of a row is no target
			}
			count++
			if id < 256 {
				bytes++
			}
		}
		ends += count - bytes
		want := rec.Train.Loss * float64(count) / math.Ln2 / float64(bytes)
		if !(math.Abs(rec.Train.BitsPerByte/want-1) <= 1e-12) {
			t.Errorf("step %d: %v bits per byte, want %v", rec.Step, rec.Train.BitsPerByte, want)
		}
	}
	if ends == 0 {
		t.Error("no target is an end of text")
	}
}

// TestMicroBatches: a run in micro-batches does the same as a run in whole batches.
func TestMicroBatches(t *testing.T) {
	whole, err := Pretrain(t.Context(), recipe(t, "train.batch_size=4"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	parts, err := Pretrain(t.Context(), recipe(t, "train.batch_size=4", "train.micro_batch=1"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	if !(math.Abs(whole.ValLoss-parts.ValLoss) <= 1e-5*whole.ValLoss) {
		t.Errorf("validation loss %v at once, %v in parts", whole.ValLoss, parts.ValLoss)
	}
}

// TestDiverged: a run whose loss isn't finite ends, says what to do, and keeps the previous
// checkpoint.
func TestDiverged(t *testing.T) {
	r := recipe(t, "optim.lr=1.0e30", "checkpoint.every=1")
	_, err := Pretrain(t.Context(), r, quiet())
	if err == nil || !strings.Contains(err.Error(), "diverged") || !strings.Contains(err.Error(), "sambatrain resume "+r.Run.Out+" --set optim.lr=") {
		t.Fatalf("%v", err)
	}
	list := records(t, r.Run.Out)
	last := list[len(list)-1]
	if last.Kind != runlog.KindTrain || !math.IsNaN(last.Train.GradNorm) {
		t.Errorf("the last record is %s, want the step that diverged", last.Computed())
	}
	c, skipped, err := checkpoint.Newest(r.Run.Out)
	if err != nil || len(skipped) != 0 || c.Step != int64(last.Step)-1 {
		t.Fatalf("newest checkpoint %+v, %v (%v)", c, skipped, err)
	}
	// Step 2 is the first with a nonzero rate: its parameters are already spoiled.
	if err := os.RemoveAll(c.Dir); err != nil {
		t.Fatal(err)
	}
	res, err := Resume(t.Context(), r.Run.Out, quiet(), "optim.lr=0.01")
	if err != nil || res.Steps != 6 {
		t.Errorf("resumed with a lower rate: %+v, %v", res, err)
	}
}

// TestResumeRefuses: anything that would not continue where the run was.
func TestResumeRefuses(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	dir := r.Run.Out
	for _, test := range []struct {
		name, set, want string
	}{
		{"batch size", "train.batch_size=4", "a run keeps its batch size and row length"},
		{"row length", "data.seq_len=8", "a run keeps its batch size and row length"},
		{"model", "model.mlp.d_ff=40", "shape"},
		{"vocabulary", "model.vocab_size=200", "model.vocab_size: 200 is less than the 257 of tokenizer bytes"},
		{"device", "run.device=abacus", "run.device"},
		{"folder", "run.out=elsewhere", "run.out: a run stays in its folder, "},
	} {
		_, err := Resume(t.Context(), dir, quiet(), test.set)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("another %s: %v", test.name, err)
		}
	}
	if _, err := Resume(t.Context(), t.TempDir(), quiet()); err == nil || !strings.Contains(err.Error(), "not a run directory") {
		t.Errorf("an empty folder: %v", err)
	}
	// Refused attempts have not changed the run.
	if n := len(records(t, dir)); n != 6+2+3 {
		t.Errorf("%d records", n)
	}
}

// TestOtherData: a run continues with rebuilt shards if they contain the same text, and otherwise
// refuses them.
func TestOtherData(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	again := func(things string) error {
		t.Helper()
		writeText(t, r.Data.Text.Path, things)
		if err := os.RemoveAll(r.Data.Shards); err != nil {
			t.Fatal(err)
		}
		_, err := Resume(t.Context(), r.Run.Out, quiet())
		return err
	}
	if err := again("bobbles"); err == nil || !strings.Contains(err.Error(), "data.shards: "+r.Data.Shards+" holds other data") {
		t.Errorf("other text: %v", err)
	}
	if err := again("bottles"); err != nil {
		t.Errorf("the same text: %v", err)
	}
}

// TestDataLost: a shard that vanishes stops the run with a checkpoint of the steps done, from which
// it continues.
func TestDataLost(t *testing.T) {
	whole := recipe(t)
	want, err := Pretrain(t.Context(), whole, quiet())
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := data.ReadManifest(whole.Data.Shards)
	if err != nil {
		t.Fatal(err)
	}
	train, validation := manifest.Train.Shards[0].File, manifest.Validation.Shards[0].File
	for _, c := range []struct {
		shard string
		every int64 // steps between validations
		at    string
		saved int
	}{{train, 3, "step ", 1}, {validation, 3, "the validation after step 3: ", 0}, {validation, 0, "the validation after step 6: ", 0}} {
		t.Run(c.at, func(t *testing.T) {
			loseShard(t, whole, want, filepath.Join(whole.Data.Shards, c.shard), c.every, c.at, c.saved)
		})
	}
}

// loseShard removes a shard when a run like whole starts, which then fails at a given point, with a
// given number of checkpoints.
func loseShard(t *testing.T, whole *recipes.Recipe, want *Result, shard string, every int64, at string, saved int) {
	r := recipe(t)
	r.Checkpoint.Every, r.Eval.Every = 1000, every
	r.Data.Shards, r.Data.Text = whole.Data.Shards, whole.Data.Text
	o := quiet()
	console := o.Console
	o.Console = func(c runlog.ConsoleOptions) runlog.Console {
		if err := os.Rename(shard, shard+".gone"); err != nil {
			t.Error(err)
		}
		return console(c)
	}
	_, err := Pretrain(t.Context(), r, o)
	if err == nil || !strings.HasPrefix(err.Error(), at) || !strings.Contains(err.Error(), shard) || strings.Contains(err.Error(), "are saved, continue") != (saved > 0) || !strings.HasSuffix(err.Error(), "with: sambatrain resume "+r.Run.Out) {
		t.Fatalf("error is %v", err)
	}
	list, err := checkpoint.List(r.Run.Out)
	if err != nil || len(list) != saved {
		t.Fatalf("%d checkpoints, %v", len(list), err)
	}
	if err := os.Rename(shard+".gone", shard); err != nil {
		t.Fatal(err)
	}
	got, err := Resume(t.Context(), r.Run.Out, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if got.TrainLoss != want.TrainLoss || got.ValLoss != want.ValLoss {
		t.Errorf("losses are %v and %v, want %v and %v", got.TrainLoss, got.ValLoss, want.TrainLoss, want.ValLoss)
	}
}

// TestMixtureRun trains on two sources, and reports how often each was read.
func TestMixtureRun(t *testing.T) {
	r := recipe(t)
	var list []data.WeightedSource
	for i, things := range []string{"bottles", "apples"} {
		text := r.Data.Text
		text.Path = t.TempDir()
		writeText(t, text.Path, things)
		list = append(list, data.WeightedSource{Name: things, Weight: float64(3 - 2*i), Shards: filepath.Join(t.TempDir(), "shards"), Text: text})
	}
	r.Data.Mixture, r.Data.Shards, r.Data.Text = list, "", data.TextConfig{}
	got, err := Pretrain(t.Context(), r, quiet())
	if err != nil {
		t.Fatal(err)
	}
	rows := r.Train.Steps * int64(r.Train.BatchSize)
	if len(got.Sources) != 2 || got.Sources[0].Rows+got.Sources[1].Rows != rows || got.Sources[0].Rows < got.Sources[1].Rows {
		t.Errorf("sources are %+v of %d rows", got.Sources, rows)
	}
	all := records(t, r.Run.Out)
	val := all[slices.IndexFunc(all, func(rec runlog.Record) bool { return rec.Kind == runlog.KindVal && rec.Step == int(r.Train.Steps) })].Val
	// Of three rows spread over both validation splits, which are equally long, two are bottles'.
	if of := val.BySource; len(of) != 2 || of[0].Name != "apples" || !(math.Abs((of[0].Loss+2*of[1].Loss)/3-val.Loss) < 1e-9) || of[0].Loss == of[1].Loss || !slices.Equal(of, got.ValBySource) {
		t.Errorf("the validation by source is %+v in the record and %+v in the result, the whole %v", of, got.ValBySource, val.Loss)
	}
	read := val.Sources
	for i, source := range []data.SourceRead{got.Sources[1], got.Sources[0]} { // apples before bottles
		if want := (runlog.Source{Name: source.Name, Epochs: source.Epochs, Tokens: source.Rows * int64(r.Data.SeqLen)}); read[i] != want {
			t.Errorf("the record of source %d is %+v, want %+v", i, read[i], want)
		}
	}
}

// TestDataChange: a run continues with other batches only if that is requested, and the metrics say
// so.
func TestDataChange(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("train.steps=%d", r.Train.Steps+2)
	other := r.Data.Text
	other.Path = t.TempDir()
	writeText(t, other.Path, "apples")
	mixture := fmt.Sprintf("data.mixture=[{name: a, weight: 1, shards: %s}, {name: b, weight: 1, shards: %s, text: {path: %s}}]",
		r.Data.Shards, filepath.Join(t.TempDir(), "shards"), other.Path)
	for _, c := range []struct {
		sets []string
		want string
	}{
		{[]string{"data.seed=7"}, fmt.Sprintf("data.seed: is 7, the run was trained with %d", r.Data.Seed)},
		{[]string{"data.shards=", "data.text.path=", mixture}, "data.mixture: its sources hold other data than the run was trained on ("},
	} {
		sets := append(c.sets, more)
		_, err := Resume(t.Context(), r.Run.Out, quiet(), sets...)
		o := quiet()
		o.AllowDataChange = true
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || !strings.HasSuffix(err.Error(), "continue with other batches: "+o.resumeCommand(r.Run.Out, sets)) {
			t.Fatalf("error is %v, want %q and the flag", err, c.want)
		}
		copied := filepath.Join(t.TempDir(), "run")
		if err := os.CopyFS(copied, os.DirFS(r.Run.Out)); err != nil {
			t.Fatal(err)
		}
		if _, err := Resume(t.Context(), copied, o, sets...); err != nil {
			t.Fatal(err)
		}
		told := slices.ContainsFunc(records(t, copied), func(rec runlog.Record) bool {
			return rec.Event.Name == runlog.EventResumed && strings.HasPrefix(rec.Event.Detail, c.want)
		})
		if !told {
			t.Errorf("the metrics don't say %q", c.want)
		}
		// From here on the new data belongs to the run.
		if _, err := Resume(t.Context(), copied, quiet(), append(sets, fmt.Sprintf("train.steps=%d", r.Train.Steps+3))...); err != nil {
			t.Error(err)
		}
	}
}

// TestLostConfig: a run that has lost its config is neither continued nor begun again among the
// checkpoints of the old one, and its checkpoints have the config.
func TestLostConfig(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(r.Run.Out, ConfigFile)
	before, err := os.ReadFile(config)
	if err = errors.Join(err, os.Remove(config)); err != nil {
		t.Fatal(err)
	}
	written := newest(t, r.Run.Out)
	copied := filepath.Join(written.Dir, checkpoint.RecipeFile)
	want := fmt.Sprintf("%s: has checkpoints but no config.resolved.yaml; put it back, for example with `cp %s %s`", r.Run.Out, copied, config)
	if _, err := Resume(t.Context(), r.Run.Out, quiet()); err == nil || err.Error() != want {
		t.Errorf("resume: %v\nwant %s", err, want)
	}
	want += ", or choose another folder with --out"
	if _, err := Pretrain(t.Context(), r, quiet()); err == nil || err.Error() != want {
		t.Errorf("pretrain: %v\nwant %s", err, want)
	}
	if all := records(t, r.Run.Out); len(all) == 0 {
		t.Error("the metrics are gone")
	}
	after, err := os.ReadFile(copied)
	if err = errors.Join(err, os.WriteFile(config, after, 0o666)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the copy is %v\n%s", err, after)
	}
	if _, err := Resume(t.Context(), r.Run.Out, quiet()); err != nil {
		t.Error(err)
	}
}

// TestOutIsDeadLink: the error says what is in the way.
func TestOutIsDeadLink(t *testing.T) {
	r := recipe(t)
	if err := os.Symlink("nowhere", r.Run.Out); err != nil {
		t.Skip(err)
	}
	if _, err := Pretrain(t.Context(), r, quiet()); err == nil || err.Error() != "run.out: "+r.Run.Out+": is a link that leads nowhere: make what it leads to, or remove the link" {
		t.Errorf("error is %v", err)
	}
}

// TestBeginAgain: an import that was killed before it had written its config can be repeated, and
// nothing else begins there.
func TestBeginAgain(t *testing.T) {
	r := recipe(t)
	begin := func() error { return Begin(r, quiet(), func([]checkpoint.Tensor) error { return nil }) }
	if err := errors.Join(begin(), os.Remove(filepath.Join(r.Run.Out, ConfigFile))); err != nil {
		t.Fatal(err)
	}
	if _, err := Pretrain(t.Context(), r, quiet()); err == nil || !strings.Contains(err.Error(), "has checkpoints but no") {
		t.Errorf("pretrain: %v", err)
	}
	if err := begin(); err != nil {
		t.Errorf("import: %v", err)
	}
}

// TestAllDamaged: a run without a good checkpoint is not silently restarted.
func TestAllDamaged(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	list, err := checkpoint.List(r.Run.Out)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if err := os.Truncate(filepath.Join(c.Dir, "model.safetensors"), 100); err != nil {
			t.Fatal(err)
		}
	}
	_, err = Resume(t.Context(), r.Run.Out, quiet())
	if !errors.Is(err, checkpoint.ErrNoCheckpoint) || !strings.Contains(err.Error(), "delete "+filepath.Join(r.Run.Out, "checkpoints")) {
		t.Errorf("%v", err)
	}
}

// TestInUse: a folder that another process is using is refused with what this command can do about it.
func TestInUse(t *testing.T) {
	r := recipe(t)
	if err := os.Mkdir(r.Run.Out, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	lock, err := checkpoint.Lock(r.Run.Out)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Pretrain(t.Context(), r, quiet())
	if !errors.Is(err, checkpoint.ErrInUse) || !strings.HasSuffix(err.Error(), "; stop it or choose another folder with --out") {
		t.Errorf("pretrain: %v", err)
	}
	lock.Unlock()
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	if lock, err = checkpoint.Lock(r.Run.Out); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	_, err = Resume(t.Context(), r.Run.Out, quiet())
	if !errors.Is(err, checkpoint.ErrInUse) || !strings.HasSuffix(err.Error(), "; stop it") {
		t.Errorf("resume: %v", err)
	}
}

// TestShorterRun: a run that has done more steps than requested says so, and stays unchanged.
func TestShorterRun(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	was := newest(t, r.Run.Out)
	files := func() (texts []string) {
		for _, name := range []string{ConfigFile, MetricsFile} {
			text, err := os.ReadFile(filepath.Join(r.Run.Out, name))
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, string(text))
		}
		return texts
	}
	before := files()
	_, err := Resume(t.Context(), r.Run.Out, quiet(), "train.steps=5")
	want := fmt.Sprintf("train.steps: 5, and %s has done 6 steps already; ask for more, or use an earlier checkpoint in place of the run: `sambatrain checkpoint ls %[1]s` lists them", r.Run.Out)
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %q", err, want)
	}
	if is := newest(t, r.Run.Out); is.Step != was.Step || !is.SavedAt.Equal(was.SavedAt) {
		t.Errorf("the newest checkpoint is of step %d, saved at %v", is.Step, is.SavedAt)
	}
	if !slices.Equal(files(), before) {
		t.Error("the refused resume has changed the run's recipe or metrics")
	}
	res, err := Resume(t.Context(), r.Run.Out, quiet(), "train.steps=6")
	if err != nil || res.Steps != 6 {
		t.Errorf("with as many steps as it has done: %+v, %v", res, err)
	}
}

// TestLongerRun extends a finished run.
func TestLongerRun(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	res, err := Resume(t.Context(), r.Run.Out, quiet(), "train.steps=9")
	if err != nil || res.Steps != 9 {
		t.Fatalf("%+v, %v", res, err)
	}
	last := 0
	for _, rec := range records(t, r.Run.Out) {
		if rec.Kind == runlog.KindTrain {
			if rec.Step != last+1 {
				t.Errorf("step %d follows step %d", rec.Step, last)
			}
			last = rec.Step
		}
	}
	if last != 9 {
		t.Errorf("the last step on record is %d", last)
	}
}
