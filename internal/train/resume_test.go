package train

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// TestResumeExact: whatever the recipe, a run that is stopped and resumed, twice, ends with the
// parameters and moments of an uninterrupted one, bit for bit.
func TestResumeExact(t *testing.T) {
	for name, c := range map[string]struct {
		sets  []string
		shows func(r *recipes.Recipe) bool // reports whether the run did what this case tests
	}{
		"cosine":       {[]string{"optim.schedule=cosine"}, nil},
		"linear":       {[]string{"optim.schedule=linear"}, nil},
		"wsd":          {[]string{"optim.schedule=wsd", "optim.decay_fraction=0.5"}, nil},
		"constant":     {[]string{"optim.schedule=constant"}, nil},
		"matrices":     {[]string{"optim.decayed=matrices"}, nil},
		"accumulation": {[]string{"train.batch_size=4", "train.micro_batch=1"}, nil},
		"documents":    {[]string{"data.reset_state=true", "train.batch_size=4", "train.micro_batch=2"}, nil},
		"bfloat16":     {[]string{"run.dtype=bfloat16", "run.float32_sublayers=1"}, nil},
		"generated":    {[]string{"data.generate.task=passkey", "data.seq_len=400"}, nil},
		"skipped updates": {[]string{"optim.lr=0.5", "train.guard.max_z=1", "train.guard.window=2", "train.guard.abort_after=0"}, func(r *recipes.Recipe) bool {
			var skipped []int
			for _, rec := range records(t, r.Run.Out) {
				if rec.Event.Name == runlog.EventSkipped {
					skipped = append(skipped, rec.Step)
				}
			}
			// Before the last resume, but not after it: the updates after it depend on their number.
			return len(skipped) > 0 && skipped[len(skipped)-1] <= 4
		}},
		"several epochs": {[]string{"data.seq_len=256", "train.batch_size=8"}, func(r *recipes.Recipe) bool {
			res, err := ReadResult(r.Run.Out)
			return err == nil && res.Sources[0].Epochs > 2
		}},
		"recomputed": {[]string{"run.memory_budget=250KB"}, func(r *recipes.Recipe) bool {
			in, err := Inspect(r)
			return err == nil && in.Recomputed > 0
		}},
	} {
		t.Run(name, func(t *testing.T) {
			whole := recipe(t, c.sets...)
			if _, err := Pretrain(t.Context(), whole, quiet()); err != nil {
				t.Fatal(err)
			}
			if c.shows != nil && !c.shows(whole) {
				t.Error("the run does not do it")
			}
			parts := *whole
			parts.Run.Out = filepath.Join(t.TempDir(), "run")
			stopAt(t, 1, func(ctx context.Context, o Options) (*Result, error) { return Pretrain(ctx, &parts, o) })
			stopAt(t, 4, func(ctx context.Context, o Options) (*Result, error) { return Resume(ctx, parts.Run.Out, o) })
			if _, err := Resume(t.Context(), parts.Run.Out, quiet()); err != nil {
				t.Fatal(err)
			}
			d, err := checkpoint.Diff(newest(t, parts.Run.Out), newest(t, whole.Run.Out), RecipeDifferences)
			// The recipes differ only in run.out.
			if err != nil || !d.Same || d.Equal == 0 || len(d.State) > 0 {
				t.Errorf("%+v, %v", d, err)
			}
			if got, want := computed(t, parts.Run.Out), computed(t, whole.Run.Out); got != want {
				t.Errorf("metrics are\n%sof the run that never stopped\n%s", got, want)
			}
		})
	}
}

// TestLostMetrics: a run whose metrics are lost continues with new ones and ends normally; if it
// has done all its steps, it says what is missing.
func TestLostMetrics(t *testing.T) {
	r := recipe(t)
	stopAt(t, 4, func(ctx context.Context, o Options) (*Result, error) { return Pretrain(ctx, r, o) })
	metrics := filepath.Join(r.Run.Out, MetricsFile)
	lost := func() {
		t.Helper()
		if err := os.Remove(metrics); err != nil {
			t.Fatal(err)
		}
	}
	lost()
	var log strings.Builder
	o := quiet()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	res, err := Resume(t.Context(), r.Run.Out, o)
	if err != nil || res.Steps != 6 {
		t.Fatalf("%+v, %v", res, err)
	}
	if !strings.Contains(log.String(), "metrics were lost") || !strings.Contains(log.String(), "has=0 of=4") {
		t.Errorf("the log does not say what was lost:\n%s", log.String())
	}
	if all := records(t, r.Run.Out); all[0].Event.Name != runlog.EventResumed || all[1].Step != 5 {
		t.Errorf("the new metrics begin with %+v and %+v", all[0], all[1])
	}
	lost()
	if _, err := Resume(t.Context(), r.Run.Out, quiet()); err == nil || !strings.Contains(err.Error(), "put it back, or delete the last checkpoint") {
		t.Errorf("after all steps: %v", err)
	}
}

// TestResumeRemovesLeftOvers: files that a killed process was writing do not pile up.
func TestResumeRemovesLeftOvers(t *testing.T) {
	r := recipe(t)
	stopAt(t, 4, func(ctx context.Context, o Options) (*Result, error) { return Pretrain(ctx, r, o) })
	var left []string
	for _, name := range []string{ConfigFile, MetricsFile, SampleFile, ResultFile} {
		left = append(left, filepath.Join(r.Run.Out, "."+name+".0123456789abcdef.tmp"))
	}
	for _, path := range left {
		if err := os.WriteFile(path, []byte("half"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var log strings.Builder
	o := quiet()
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	if _, err := Resume(t.Context(), r.Run.Out, o); err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(log.String(), path+": removed") {
			t.Errorf("%s: %v; logged are\n%s", path, err, log.String())
		}
	}
}

// stopAt stops a run after a step.
func stopAt(t *testing.T, step int, run func(context.Context, Options) (*Result, error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	o := quiet()
	o.Console = func(runlog.ConsoleOptions) runlog.Console { return &stopper{after: step, cancel: cancel} }
	_, err := run(ctx, o)
	var stopped *Stopped
	if !errors.As(err, &stopped) || stopped.Step != int64(step) {
		t.Fatalf("not stopped behind step %d: %v", step, err)
	}
}

func newest(t *testing.T, run string) *checkpoint.Checkpoint {
	t.Helper()
	c, skipped, err := checkpoint.Newest(run)
	if err != nil || len(skipped) > 0 {
		t.Fatal(skipped, err)
	}
	return c
}

// computed returns the steps and validations in a run's metrics, without times.
func computed(t *testing.T, run string) string {
	t.Helper()
	var b strings.Builder
	for _, r := range records(t, run) {
		if r.Kind != runlog.KindEvent {
			fmt.Fprintln(&b, r.Computed())
		}
	}
	return b.String()
}
