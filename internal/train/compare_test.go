package train

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// pair returns two recipes on the same tokens, in separate folders.
func pair(t *testing.T, sets ...string) []*recipes.Recipe {
	t.Helper()
	a := recipe(t, append(sets, "eval.lengths=[1, 2]")...)
	b := *a
	b.Name, b.Run.Out = "other", filepath.Join(filepath.Dir(a.Run.Out), "other")
	b.Model.Layers.Pattern = pattern("swa", "mlp")
	return []*recipes.Recipe{a, &b}
}

func TestCompare(t *testing.T) {
	list := pair(t)
	c, err := Compare(t.Context(), list, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if c.Steps != 6 || c.Tokens != 6*2*16 || c.SeqLen != 16 || len(c.Runs) != 2 {
		t.Fatalf("%+v", c)
	}
	for i, row := range c.Runs {
		in, err := Inspect(list[i])
		if err != nil {
			t.Fatal(err)
		}
		if row.Name != list[i].Name || row.Run != list[i].Run.Out || row.Parameters != in.Parameters.Total || row.NonEmbedding != in.Parameters.NonEmbedding {
			t.Errorf("%+v, inspect counts %+v", row, in.Parameters)
		}
		if row.Error != "" || !(row.TokensPerSecond > 0) || !strings.HasPrefix(row.Device, "cpu") || len(row.Validation) != 2 {
			t.Fatalf("%+v", row)
		}
		var last runlog.Val
		for _, rec := range records(t, row.Run) {
			if rec.Kind == runlog.KindVal {
				last = rec.Val
			}
		}
		want := []Measured{
			{1, 16, last.Loss, math.Exp(last.Loss), last.BitsPerByte},
			{2, 32, last.Longer[0].Loss, math.Exp(last.Longer[0].Loss), last.Longer[0].BitsPerByte},
		}
		if !reflect.DeepEqual(row.Validation, want) {
			t.Errorf("%s: %+v, want %+v", row.Name, row.Validation, want)
		}
	}
	// A process that died before it could report must report again.
	if err := os.Remove(filepath.Join(list[1].Run.Out, ResultFile)); err != nil {
		t.Fatal(err)
	}
	reported, err := Compare(t.Context(), list, quiet())
	if err != nil || !reflect.DeepEqual(reported, c) {
		t.Errorf("reported again: %+v, %v; was %+v", reported, err, c)
	}
	// A finished run is not trained again, whatever its device would be.
	before := records(t, list[0].Run.Out)
	list[0].Run.Threads = 2
	again, err := Compare(t.Context(), list, quiet())
	if err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("compared again: %+v, %v; was %+v", again, err, c)
	}
	if after := records(t, list[0].Run.Out); !reflect.DeepEqual(before, after) {
		t.Errorf("the finished run has %d records, had %d", len(after), len(before))
	}
}

// TestCompareStopped: a comparison that is stopped continues where it was.
func TestCompareStopped(t *testing.T) {
	list := pair(t)
	want, err := Compare(t.Context(), pair(t), quiet())
	if err != nil {
		t.Fatal(err)
	}
	o := quiet()
	ctx, cancel := context.WithCancel(t.Context())
	runs := 0
	o.Console = func(runlog.ConsoleOptions) runlog.Console {
		if runs++; runs == 2 {
			return &stopper{after: 3, cancel: cancel}
		}
		return &stopper{}
	}
	_, err = Compare(ctx, list, o)
	var stopped *Stopped
	if !errors.As(err, &stopped) || stopped.Run != list[1].Run.Out || stopped.Step != 3 || !strings.Contains(err.Error(), "/other after step 3 and saved; continue with the same command") {
		t.Fatalf("%v", err)
	}
	// Also when stopped before it continues.
	if _, err := Compare(ctx, list, o); !errors.As(err, &stopped) || stopped.Step != -1 || !strings.Contains(err.Error(), "nothing is lost; continue with the same command") {
		t.Fatalf("%v", err)
	}
	// With other workers and less memory than before.
	list[1].Run.Threads, list[1].Run.MemoryBudget = 2, 1<<30
	c, err := Compare(t.Context(), list, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.Runs[1].Device, "cpu (2 threads") {
		t.Errorf("went on with %s, %s", c.Runs[1].Device, c.Runs[1].Error)
	}
	for i, row := range c.Runs {
		if !reflect.DeepEqual(row.Validation, want.Runs[i].Validation) {
			t.Errorf("%s: stopped %+v, never stopped %+v", row.Name, row.Validation, want.Runs[i].Validation)
		}
	}
}

// TestCompareGoesOn: a recipe that fails is reported, and the others have results.
func TestCompareGoesOn(t *testing.T) {
	list := pair(t)
	list[0].Run.Device = "cuda"
	c, err := Compare(t.Context(), list, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if c.Runs[0].Error == "" && !strings.HasPrefix(c.Runs[0].Device, "cpu") {
		t.Skip("this machine has a GPU")
	}
	if !strings.Contains(c.Runs[0].Error, "run.device") || len(c.Runs[0].Validation) != 0 || c.Runs[1].Error != "" {
		t.Errorf("%+v", c)
	}
	// On the CPU only this one is trained.
	list[0].Run.Device = "cpu"
	if c, err = Compare(t.Context(), list, quiet()); err != nil || c.Runs[0].Error != "" || len(c.Runs[0].Validation) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestCompareTogether: of two comparisons in one folder the second ends, and trains nothing of the first.
func TestCompareTogether(t *testing.T) {
	list := pair(t)
	if err := checkpoint.MkdirAll(list[0].Run.Out); err != nil {
		t.Fatal(err)
	}
	lock, err := checkpoint.Lock(list[0].Run.Out)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if c, err := Compare(t.Context(), list, quiet()); c != nil || !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := os.Stat(list[1].Run.Out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other recipe: %v", err)
	}
}

func TestCompareRefuses(t *testing.T) {
	for _, test := range []struct {
		change func(r *recipes.Recipe)
		want   string
	}{
		{func(r *recipes.Recipe) { r.Name = "tiny" }, "two recipes are named tiny"},
		{func(r *recipes.Recipe) { r.Train.Steps = 7 }, "tiny and other don't train on the same tokens: train.steps: 6 and 7; give all the same value with --set train.steps=..."},
		{func(r *recipes.Recipe) { r.Train.BatchSize, r.Train.MicroBatch = 4, 4 }, "train.batch_size: 2 and 4"},
		{func(r *recipes.Recipe) { r.Train.Seed++ }, "train.seed: "},
		{func(r *recipes.Recipe) { r.Data.SeqLen = 8 }, "data.seq_len: 16 and 8"},
		{func(r *recipes.Recipe) { r.Data.Shards = "elsewhere" }, "data.shards: "},
		{func(r *recipes.Recipe) { r.Eval.Lengths = []int{1} }, "eval.lengths: [1,2] and [1]"},
	} {
		list := pair(t)
		test.change(list[1])
		_, err := Compare(t.Context(), list, quiet())
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error is %v, want %q", err, test.want)
		}
		if _, err := os.Stat(list[0].Run.Out); err == nil {
			t.Errorf("%s: a run was begun", test.want)
		}
	}
	// A folder with the run of another recipe is left unchanged.
	list := pair(t)
	if _, err := Compare(t.Context(), list[:1], quiet()); err != nil {
		t.Fatal(err)
	}
	list[0].Model.MLP.DFF = 40
	c, err := Compare(t.Context(), list, quiet())
	if err != nil || !strings.Contains(c.Runs[0].Error, "holds a run of another recipe (model.mlp.d_ff: 32 and 40)") || c.Runs[1].Error != "" {
		t.Errorf("%+v, %v", c, err)
	}
}
