package train

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/dist/disttest"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// The recipe of the processes that TestTogether starts, and what they shard when they continue.
const (
	togetherRecipe = "TRAIN_TEST_RECIPE"
	togetherShard  = "TRAIN_TEST_SHARD"
)

// TestTogether starts a run in two processes, one of which is asked to stop, continues in four that
// are sharded differently, and ends like a run of one process.
func TestTogether(t *testing.T) {
	alone := recipe(t, "train.batch_size=8", "train.micro_batch=2", "eval.rows=7", "optim.eps=1e-2", "optim.decayed=matrices")
	want, err := Pretrain(t.Context(), alone, quiet())
	if err != nil {
		t.Fatal(err)
	}
	for _, shards := range [][2]string{{recipes.ShardOptimizer, recipes.ShardFull}, {recipes.ShardFull, recipes.ShardNone}} {
		t.Run(shards[0]+", then "+shards[1], func(t *testing.T) { trainTogether(t, alone, want, shards) })
	}
}

// trainTogether compares a run of several processes with one of a single process.
func trainTogether(t *testing.T, alone *recipes.Recipe, want *Result, shards [2]string) {
	together := *alone
	together.Run.Out, together.Run.Shard = filepath.Join(t.TempDir(), "run"), shards[0]
	text, err := together.YAML()
	if err != nil {
		t.Fatal(err)
	}
	togetherWith(t, text)
	t.Setenv(togetherShard, shards[1])
	disttest.Run(t, 2, "pretrain and stop")
	first := records(t, together.Run.Out)
	if last := first[len(first)-1]; last.Event.Name != runlog.EventStopped || last.Step != 1 {
		t.Errorf("the run of two ends with %+v, not with a stop behind step 1", last)
	}
	disttest.Run(t, 4, "resume")
	got, err := ReadResult(together.Run.Out)
	if err != nil {
		t.Fatal(err)
	}
	if got.Steps != want.Steps || got.Tokens != want.Tokens || got.Parameters != want.Parameters {
		t.Errorf("%+v, want %+v", got, want)
	}
	losses := map[int]float64{}
	for _, r := range records(t, alone.Run.Out) {
		if r.Kind == runlog.KindTrain {
			losses[r.Step] = r.Train.Loss
		}
	}
	steps := 0
	for _, r := range records(t, together.Run.Out) {
		switch {
		case r.Kind == runlog.KindTrain:
			steps++
			if !(math.Abs(r.Train.Loss-losses[r.Step]) <= 1e-5) {
				t.Errorf("step %d: loss %v, alone %v", r.Step, r.Train.Loss, losses[r.Step])
			}
		case r.Kind == runlog.KindVal && r.Step == 6:
			if !(math.Abs(r.Val.Loss-want.ValLoss) <= 1e-5) || !(math.Abs(r.Val.BitsPerByte-want.ValBitsPerByte) <= 1e-5) {
				t.Errorf("validation %+v, alone %v nats and %v bits per byte", r.Val, want.ValLoss, want.ValBitsPerByte)
			}
		}
	}
	if steps != len(losses) {
		t.Errorf("%d steps on record, want %d", steps, len(losses))
	}
}

// TestPieces: if everything is sharded, each process writes its pieces, a stopped run ends like an
// uninterrupted one, bit for bit, and one process can read all of it.
func TestPieces(t *testing.T) {
	t.Setenv(togetherShard, recipes.ShardFull)
	runs, samples := map[string]*checkpoint.Checkpoint{}, map[string]string{}
	for _, name := range []string{"stopped", "whole"} {
		r := recipe(t, "train.batch_size=8", "train.micro_batch=2", "eval.rows=7", "run.shard="+recipes.ShardFull, "checkpoint.every=4", "sample.tokens=3")
		text, err := r.YAML()
		if err != nil {
			t.Fatal(err)
		}
		togetherWith(t, text)
		if name == "stopped" {
			disttest.Run(t, 4, "pretrain and stop")
			disttest.Run(t, 4, "resume")
		} else {
			disttest.Run(t, 4, "pretrain")
		}
		if runs[name], _, err = checkpoint.Newest(r.Run.Out); err != nil {
			t.Fatal(err)
		}
		res, err := ReadResult(r.Run.Out)
		if err != nil {
			t.Fatal(err)
		}
		samples[name] = res.Sample
	}
	if samples["stopped"] == "" || samples["stopped"] != samples["whole"] {
		t.Errorf("the samples are %q", samples)
	}
	if d, err := checkpoint.Diff(runs["stopped"], runs["whole"], nil); err != nil || !d.Same || d.Equal == 0 {
		t.Errorf("the run that stopped ends otherwise: %+v, %v", d, err)
	}
	files, err := filepath.Glob(filepath.Join(runs["whole"].Dir, "optimizer-rank-0000?-of-00004.safetensors"))
	if err != nil || len(files) != 4 {
		t.Errorf("moments are in %q (%v), want a file of each process", files, err)
	}
	r := recipe(t)
	e, err := NewEngine(device(t, 1), &r.Model, r.Optim, ConfigOf(r))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Restore(runs["whole"]); err != nil {
		t.Fatal(err)
	}
	model, moments, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lock, err := checkpoint.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if _, err := lock.Save(runs["whole"].State, model, moments); err != nil {
		t.Fatal(err)
	}
	alone, _, err := checkpoint.Newest(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := checkpoint.Diff(alone, runs["whole"], nil); err != nil || !d.Same {
		t.Errorf("one process reads something else: %+v, %v", d, err)
	}
}

// togetherWith passes a recipe to the processes that a test starts.
func togetherWith(t *testing.T, recipe []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "recipe.yaml")
	if err := os.WriteFile(file, recipe, 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv(togetherRecipe, file)
}

// TestSharesRefused: a batch that is not divisible among the processes is refused before anything
// is created.
func TestSharesRefused(t *testing.T) {
	r := recipe(t, "train.batch_size=6", "train.micro_batch=2")
	for processes, ok := range map[int]bool{1: true, 2: false, 3: true, 4: false, 6: true} {
		if err := checkShares(r, processes); (err == nil) != ok {
			t.Errorf("%d processes: %v", processes, err)
		}
	}
}

func placed() (*recipes.Recipe, Options, error) {
	o := quiet()
	o.Abort = func(cause error) {
		fmt.Fprintln(os.Stderr, cause)
		os.Exit(1)
	}
	var err error
	if o.Place, err = dist.Detect(dist.NoFlags(), os.LookupEnv, 0); err != nil {
		return nil, o, err
	}
	text, err := os.ReadFile(os.Getenv(togetherRecipe))
	if err != nil {
		return nil, o, err
	}
	r, err := recipes.Parse(text, "recipe.yaml")
	return r, o, err
}

// stopAtModel is a log that ends a context once the model exists.
type stopAtModel struct {
	slog.Handler
	cancel context.CancelFunc
}

func (s stopAtModel) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "model" {
		s.cancel()
	}
	return nil
}

func (s stopAtModel) Enabled(context.Context, slog.Level) bool { return true }

func pretrainAndStop() error {
	r, o, err := placed()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if o.Place.Rank == 1 {
		o.Log = slog.New(stopAtModel{slog.DiscardHandler, cancel})
	}
	_, err = Pretrain(ctx, r, o)
	var stopped *Stopped
	if !errors.As(err, &stopped) || stopped.Step != 1 {
		return fmt.Errorf("rank %d: %w, not a stop behind step 1", o.Place.Rank, err)
	}
	return nil
}

func pretrainTogether() error {
	r, o, err := placed()
	if err != nil {
		return err
	}
	_, err = Pretrain(context.Background(), r, o)
	return err
}

func resumeTogether() error {
	r, o, err := placed()
	if err != nil {
		return err
	}
	res, err := Resume(context.Background(), r.Run.Out, o, "run.shard="+os.Getenv(togetherShard))
	if err != nil {
		return err
	}
	if (res != nil) != (o.Place.Rank == 0) {
		return fmt.Errorf("rank %d has the result %+v", o.Place.Rank, res)
	}
	return nil
}
