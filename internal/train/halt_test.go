package train

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/internal/dist/disttest"
	"github.com/sambatrain/sambatrain/internal/runlog"
)

func TestHalt(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, c := range []struct {
		kind   spellKind
		second time.Duration // how long the second one may take, after one of a second
	}{
		{stepping, 2 * time.Minute}, {validating, 2 * time.Minute}, {saving, 10 * time.Minute},
	} {
		h := halt{timeout: time.Minute}
		check := func(d time.Duration, want bool) {
			t.Helper()
			if got := h.noticed(at(d)); (got != "") != want {
				t.Errorf("%d after %v: %q", c.kind, d, got)
			}
		}
		check(time.Hour, false) // nothing has begun
		h.begins(c.kind, "it", now)
		check(9*time.Minute, false)
		check(11*time.Minute, true)
		h.ends(c.kind, at(time.Second))
		check(time.Hour, false)
		h.begins(c.kind, "it", now)
		check(c.second-time.Second, false)
		check(c.second+time.Second, true)
		h.ends(c.kind, at(90*time.Second))
		h.begins(c.kind, "it", now)
		check(14*time.Minute, false)
		check(16*time.Minute, true)
	}
	// While a disk writes, steps are watched as ever.
	h := halt{timeout: time.Minute}
	h.disk("a write")
	h.begins(stepping, "step 1", now)
	h.ends(stepping, at(time.Second))
	h.begins(stepping, "step 2", now)
	if got := h.noticed(at(3 * time.Minute)); !strings.HasPrefix(got, "step 2 has not ended for 3m0s") {
		t.Errorf("noticed %q", got)
	}
}

// How the halt begins that TestHalted waits for.
const haltedAt = "TRAIN_TEST_HALT"

// TestHalted: process 0 runs, and shows it, but comes no further after its second step: the other
// one waits for it in the next step, or in a validation. Both processes end.
func TestHalted(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"eval.every=0", "step 3 has not ended for "},
		{"eval.every=1", "the validation after step 2 has not ended for "},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := recipe(t, "train.batch_size=8", "run.timeout=2s", "checkpoint.every=6", c.name)
			text, err := r.YAML()
			if err != nil {
				t.Fatal(err)
			}
			togetherWith(t, text)
			t.Setenv(haltedAt, c.want)
			disttest.RunAborted(t, 2, "halt")
		})
	}
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
	if err := <-ended; err == nil || !strings.HasPrefix(err.Error(), os.Getenv(haltedAt)) {
		return fmt.Errorf("rank %d: %w, want %q", o.Place.Rank, err, os.Getenv(haltedAt))
	}
	return nil
}
