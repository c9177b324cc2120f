package train

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
)

// TestStop: a run that is told to stop saves the step that it has done, and continues from there.
// After step 2 there is a checkpoint already, which is not written twice: whoever ends a job may
// not wait long.
func TestStop(t *testing.T) {
	whole, err := Pretrain(t.Context(), recipe(t), quiet())
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []int{1, 2, 3} {
		r := recipe(t)
		ctx, cancel := context.WithCancel(t.Context())
		o := quiet()
		o.Console = func(c runlog.ConsoleOptions) runlog.Console { return &stopper{after: after, cancel: cancel} }
		_, err := Pretrain(ctx, r, o)
		var stopped *Stopped
		if !errors.As(err, &stopped) || stopped.Step != int64(after) || stopped.Run != r.Run.Out {
			t.Fatalf("after step %d: %v", after, err)
		}
		c, skipped, err := checkpoint.Newest(r.Run.Out)
		if err != nil || len(skipped) > 0 || c.Step != int64(after) || c.Position != 2*int64(after) || c.Tokens != 32*int64(after) {
			t.Errorf("after step %d: saved %+v, passed over %v (%v)", after, c, skipped, err)
		}
		var saves []int
		for _, rec := range records(t, r.Run.Out) {
			if rec.Event.Name == runlog.EventCheckpoint {
				saves = append(saves, rec.Step)
			}
		}
		if want := map[int][]int{1: {1}, 2: {2}, 3: {2, 3}}[after]; !slices.Equal(saves, want) {
			t.Errorf("after step %d: checkpoints of steps %v, want %v", after, saves, want)
		}
		// If it is told to stop before it continues, it is unchanged.
		if _, err := Resume(ctx, r.Run.Out, quiet()); !errors.As(err, &stopped) || stopped.Step != -1 || !strings.Contains(err.Error(), "nothing is lost") {
			t.Errorf("after step %d: %v", after, err)
		}
		res, err := Resume(t.Context(), r.Run.Out, quiet())
		if err != nil || res.Steps != 6 {
			t.Fatalf("after step %d: %+v, %v", after, res, err)
		}
		if res.TrainLoss != whole.TrainLoss || res.ValLoss != whole.ValLoss {
			t.Errorf("stopped after step %d and resumed: %v, %v; never stopped: %v, %v", after, res.TrainLoss, res.ValLoss, whole.TrainLoss, whole.ValLoss)
		}
	}
}

// TestStopInSample: a run that is told to stop when all its steps are done skips its sample, which
// remains to be done.
func TestStopInSample(t *testing.T) {
	r := recipe(t)
	r.Sample.Tokens = 5
	ctx, cancel := context.WithCancel(t.Context())
	o := quiet()
	o.Console = func(runlog.ConsoleOptions) runlog.Console { return &stopper{after: int(r.Train.Steps), cancel: cancel} }
	_, err := Pretrain(ctx, r, o)
	var stopped *Stopped
	if !errors.As(err, &stopped) || stopped.Step != r.Train.Steps {
		t.Fatalf("error is %v", err)
	}
	res, err := Resume(t.Context(), r.Run.Out, quiet())
	if err != nil || res.Steps != r.Train.Steps || res.Sample == "" {
		t.Fatalf("resumed: %+v, %v", res, err)
	}
}

// stopper is a console that ends the run when it sees a step.
type stopper struct {
	after  int
	cancel func()
}

func (s *stopper) Step(r runlog.Record) {
	if r.Kind == runlog.KindTrain && r.Step == s.after {
		s.cancel()
	}
}

func (*stopper) Note(string) {}

func (*stopper) Close() {}
