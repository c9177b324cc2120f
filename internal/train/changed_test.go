package train

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

func TestChanges(t *testing.T) {
	r := recipe(t)
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set  string
		want []string
	}{
		{"optim.weight_decay=0.25", []string{"optim.weight_decay: 0.25 (was 0.1)"}},
		{"run.threads=3", nil},
		{"run.tune_products=false", nil},
		{"run.float32_sublayers=0", []string{`run.float32_sublayers: 0 (was "auto")`}},
	} {
		changed := *r
		if err := changed.Set(c.set); err != nil {
			t.Fatal(err)
		}
		if got := changes(&changed, text); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.set, got, c.want)
		}
	}
	if got := changes(r, []byte("name: x\nnmae: y\n")); len(got) != 1 || !strings.Contains(got[0], "its recipe:2: unknown key nmae") {
		t.Errorf("a recipe that can't be read: %q", got)
	}
}

// TestChangedConfig: a recipe that differs from the checkpoint's, even by a flipped bit, is
// reported.
func TestChangedConfig(t *testing.T) {
	r := recipe(t)
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(r.Run.Out, ConfigFile)
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Replace(text, []byte("weight_decay: 0.1"), []byte("weight_decay: 0.3"), 1)
	if err := os.WriteFile(config, flipped, 0o666); err != nil || bytes.Equal(text, flipped) {
		t.Fatal(err)
	}
	var log bytes.Buffer
	o := quiet()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stopped *Stopped
	if _, err := Resume(ctx, r.Run.Out, o); err != nil && !errors.As(err, &stopped) {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "the recipe differs from that of the checkpoint") || !strings.Contains(log.String(), "optim.weight_decay: 0.3 (was 0.1)") {
		t.Errorf("the log is\n%s", log.String())
	}
}

// TestSetsAreKept: a run that was resumed with another recipe continues with that one after it was
// stopped, but where it runs is up to each process.
func TestSetsAreKept(t *testing.T) {
	whole := recipe(t, "optim.schedule=constant")
	if _, err := Pretrain(t.Context(), whole, quiet()); err != nil {
		t.Fatal(err)
	}
	parts := *whole
	parts.Train.Steps, parts.Run.Out = 2, filepath.Join(t.TempDir(), "run")
	if _, err := Pretrain(t.Context(), &parts, quiet()); err != nil {
		t.Fatal(err)
	}
	load := func() *recipes.Recipe {
		t.Helper()
		r, err := LoadConfig(parts.Run.Out)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if _, err := Resume(t.Context(), parts.Run.Out, quiet(), "train.steps=4", "data.seed=5"); err == nil {
		t.Error("other batches are not refused")
	}
	if r := load(); r.Train.Steps != 2 || r.Data.Seed != parts.Data.Seed {
		t.Errorf("refused changes are kept: %d steps, seed %d", r.Train.Steps, r.Data.Seed)
	}
	stopAt(t, 4, func(ctx context.Context, o Options) (*Result, error) {
		return Resume(ctx, parts.Run.Out, o, "train.steps=6", "run.threads=2")
	})
	if r := load(); r.Train.Steps != 6 || r.Run.Threads != parts.Run.Threads {
		t.Errorf("kept are %d steps and %d threads", r.Train.Steps, r.Run.Threads)
	}
	want := parts
	want.Train.Steps = 6
	text, err := want.YAML()
	if got, readErr := os.ReadFile(filepath.Join(parts.Run.Out, ConfigFile)); err != nil || readErr != nil || !bytes.Equal(got, text) {
		t.Errorf("the config is\n%s\nwant\n%s", got, text)
	}
	if _, err := Resume(t.Context(), parts.Run.Out, quiet()); err != nil {
		t.Fatal(err)
	}
	d, err := checkpoint.Diff(newest(t, parts.Run.Out), newest(t, whole.Run.Out), RecipeDifferences)
	if err != nil || !d.Same || d.Equal == 0 || len(d.State) > 0 {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestAskedChangesAreSaidOnce: of a recipe that differs from the checkpoint's, what the user has set
// is not a warning.
func TestAskedChangesAreSaidOnce(t *testing.T) {
	for _, c := range []struct {
		name   string
		warned bool
	}{{"asked alone", false}, {"another too", true}} {
		t.Run(c.name, func(t *testing.T) {
			r := recipe(t)
			r.Train.Steps = 2
			if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
				t.Fatal(err)
			}
			if c.warned {
				config := filepath.Join(r.Run.Out, ConfigFile)
				text, err := os.ReadFile(config)
				flipped := bytes.Replace(text, []byte("grad_clip: 1"), []byte("grad_clip: 2"), 1)
				if err = errors.Join(err, os.WriteFile(config, flipped, 0o666)); err != nil || bytes.Equal(text, flipped) {
					t.Fatal(err)
				}
			}
			var log bytes.Buffer
			o := quiet()
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			if _, err := Resume(t.Context(), r.Run.Out, o, "train.steps=3", "optim.weight_decay=0.3"); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(log.String(), "optim.weight_decay: 0.3 (was 0.1)"); n != 1 {
				t.Errorf("the change is said %d times:\n%s", n, log.String())
			}
			warning := "the recipe differs from that of the checkpoint"
			if got := strings.Contains(log.String(), warning); got != c.warned || got && !strings.Contains(log.String(), "changed=\"optim.grad_clip: 2 (was 1)\"") {
				t.Errorf("the log is\n%s", log.String())
			}
		})
	}
}

// TestSetsAreRecorded: the metrics say what each resume has changed, for good or for itself alone, and
// the log too.
func TestSetsAreRecorded(t *testing.T) {
	r := recipe(t)
	r.Train.Steps = 2
	if _, err := Pretrain(t.Context(), r, quiet()); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, c := range []struct {
		sets             []string
		allow            bool
		kept, here, data string
	}{
		{nil, false, "", "", ""},
		{[]string{"run.threads=2", "run.log_every=3"}, false, "", "run.threads: 2 (was 1); run.log_every: 3 (was 10)", ""},
		{[]string{"train.steps=3", "run.threads=2", "run.log_every=10"}, false, "train.steps: 3 (was 2)", "run.threads: 2 (was 1)", ""},
		{[]string{"train.steps=4", "data.seed=9"}, true, "data.seed: 9 (was 3407); train.steps: 4 (was 3)", "", "data.seed: is 9, the run was trained with 3407"},
	} {
		var log bytes.Buffer
		o := quiet()
		o.Log, o.AllowDataChange = slog.New(slog.NewTextHandler(&log, nil)), c.allow
		if _, err := Resume(t.Context(), r.Run.Out, o, c.sets...); err != nil {
			t.Fatal(err)
		}
		for message, changed := range map[string]string{"the run keeps the changed recipe": c.kept, "changed for this command alone": c.here} {
			said := strings.Contains(log.String(), message)
			if said != (changed != "") || said && !strings.Contains(log.String(), `changed="`+changed+`"`) {
				t.Errorf("%q: the log should say %q of %q, and is\n%s", c.sets, message, changed, log.String())
			}
		}
		detail := c.kept
		if c.data != "" {
			detail = c.data + "; train.steps: 4 (was 3)"
		}
		want = append(want, strings.Trim(detail+"; "+c.here, "; "))
	}
	var got []string
	for _, rec := range records(t, r.Run.Out) {
		if rec.Event.Name == runlog.EventResumed {
			got = append(got, rec.Event.Detail)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the metrics say\n%q\nwant\n%q", got, want)
	}
}

// TestConfigBeforeFloat32Sublayers: a bfloat16 run that began before this key existed continues
// without float32 sublayers; others keep the value that auto stood for.
func TestConfigBeforeFloat32Sublayers(t *testing.T) {
	r := recipe(t)
	if err := errors.Join(r.Set("run.dtype=bfloat16"), r.Validate()); err != nil {
		t.Fatal(err)
	}
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	before := regexp.MustCompile(`(?m)^ *float32_sublayers: .*\n`).ReplaceAll(text, nil)
	for _, c := range []struct {
		text []byte
		want recipes.Sublayers
	}{{text, recipes.Sublayers(r.Model.Float32Sublayers())}, {before, 0}} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ConfigFile), c.text, 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := LoadConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got.Run.Float32Sublayers != c.want || len(c.text) == len(text) == (c.want == 0) {
			t.Errorf("%v sublayers in float32, want %v of\n%s", got.Run.Float32Sublayers, c.want, c.text)
		}
	}
}

// TestConfigOfGeneratedRowsWithShards: a run of generated rows whose recipe was written with the
// keys of text, which were not read, continues.
func TestConfigOfGeneratedRowsWithShards(t *testing.T) {
	text, err := recipe(t).YAML()
	if err != nil {
		t.Fatal(err)
	}
	both := bytes.Replace(text, []byte(`task: ""`), []byte("task: passkey"), 1)
	got, err := parseWritten(both, "config", "data.seq_len=400")
	if err != nil || bytes.Equal(both, text) {
		t.Fatalf("%v; the recipe is\n%s", err, both)
	}
	if d := got.Data; d.Generate.Task != "passkey" || d.Shards != "" || d.Text.Path != "" {
		t.Errorf("data is %+v", d)
	}
}

// TestRecipeDifferences: keys that don't change results are left out, a device is not.
func TestRecipeDifferences(t *testing.T) {
	r := recipe(t)
	text := func(sets ...string) []byte {
		t.Helper()
		changed := *r
		for _, set := range sets {
			if err := changed.Set(set); err != nil {
				t.Fatal(err)
			}
		}
		text, err := changed.YAML()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for _, c := range []struct{ sets, want []string }{
		{[]string{"run.out=elsewhere", "run.threads=3", "run.memory_budget=1GB"}, nil},
		{[]string{"run.device=cuda", "optim.lr=0.5"}, []string{"optim.lr: 0.01 and 0.5", `run.device: "cpu" and "cuda"`}},
	} {
		if got := RecipeDifferences(text(), text(c.sets...)); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.sets, got, c.want)
		}
	}
	if got := RecipeDifferences(text(), []byte("nmae: y\n")); len(got) != 1 || !strings.Contains(got[0], "unknown key nmae") {
		t.Errorf("a recipe that can't be read: %q", got)
	}
}
