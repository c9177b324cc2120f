package train

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/internal/dist/disttest"
	"github.com/sambatrain/sambatrain/internal/runlog"
)

func TestHalt(t *testing.T) {
	h := halt{timeout: time.Minute}
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	check := func(d time.Duration, want bool) {
		t.Helper()
		if got := h.noticed(at(d)); (got != "") != want {
			t.Errorf("after %v: %q", d, got)
		}
	}
	check(time.Hour, false) // no step has begun
	h.begins(1, now)
	check(9*time.Minute, false)
	check(11*time.Minute, true)
	h.ends(at(time.Second))
	check(time.Hour, false)
	h.begins(2, now)
	check(119*time.Second, false)
	check(121*time.Second, true)
	h.ends(at(30 * time.Second))
	h.begins(3, now)
	check(4*time.Minute, false)
	check(6*time.Minute, true)
}

// TestHalted: process 0 runs, and shows it, but trains no more after its second step. Both
// processes end.
func TestHalted(t *testing.T) {
	r := recipe(t, "train.batch_size=8", "run.timeout=2s", "checkpoint.every=6")
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	togetherWith(t, text)
	disttest.RunAborted(t, 2, "halt")
}

// stuck is a console that shows two steps and no more.
type stuck struct{ runlog.Console }

func (s stuck) Step(r runlog.Record) {
	if r.Kind == runlog.KindTrain && r.Step == 2 {
		select {}
	}
}

func haltTogether() error {
	r, o, err := placed()
	if err != nil {
		return err
	}
	console := o.Console
	o.Console = func(c runlog.ConsoleOptions) runlog.Console { return stuck{console(c)} }
	ended := make(chan error, 1)
	o.Abort = func(cause error) {
		ended <- cause
		select {}
	}
	go func() {
		_, err := Pretrain(context.Background(), r, o)
		ended <- fmt.Errorf("it came to an end: %w", err)
	}()
	if err := <-ended; err == nil || !strings.HasPrefix(err.Error(), "step 3 has not ended for ") {
		return fmt.Errorf("rank %d: %w, not the halt of step 3", o.Place.Rank, err)
	}
	return nil
}
