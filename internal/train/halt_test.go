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
	"github.com/sambatrain/sambatrain/recipes"
)

func TestHalt(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, c := range []struct {
		kind   spellKind
		second time.Duration // how long the second one may take, after one of a second
	}{
		{stepping, 2 * time.Minute}, {validating, 2 * time.Minute}, {onDisk, 10 * time.Minute},
	} {
		h := halt{timeout: time.Minute}
		check := func(d time.Duration, want bool) {
			t.Helper()
			if got := h.noticed(at(d)); (got != "") != want {
				t.Errorf("%d after %v: %q", c.kind, d, got)
			}
		}
		check(time.Hour, false) // nothing has begun
		s := h.begins(c.kind, "it", now)
		check(9*time.Minute, false)
		check(11*time.Minute, true)
		h.ends(s, at(time.Second))
		check(time.Hour, false)
		s = h.begins(c.kind, "it", now)
		check(c.second-time.Second, false)
		check(c.second+time.Second, true)
		h.ends(s, at(90*time.Second))
		h.begins(c.kind, "it", now)
		check(14*time.Minute, false)
		check(16*time.Minute, true)
	}
}

// TestHaltAmongOthers: of several concurrent spells, each is watched, and the longest is named.
func TestHaltAmongOthers(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	h := halt{timeout: time.Minute}
	first, second := h.begins(onDisk, "a write", now), h.begins(onDisk, "a read", at(time.Second))
	h.ends(h.begins(stepping, "step 1", now), at(time.Second))
	step := h.begins(stepping, "step 2", now)
	check := func(d time.Duration, want string) {
		t.Helper()
		if got := h.noticed(at(d)); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("after %v: noticed %q, want %q", d, got, want)
		}
	}
	check(time.Minute, "")
	check(3*time.Minute, "step 2 has not ended for 3m0s")
	h.ends(step, at(3*time.Minute))
	check(9*time.Minute, "")
	check(11*time.Minute, "a write has not ended for 11m0s")
	h.ends(first, at(time.Minute))
	check(11*time.Minute, "a read has not ended for 10m59s")
	h.ends(second, at(time.Minute))
	check(time.Hour, "")
}

// TestHaltAfterStandstill: time in which the process does not run counts neither as part of the
// current spell nor of the longest one, whichever goroutine runs first afterwards.
func TestHaltAfterStandstill(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for first, limit := range map[string]time.Duration{ // from when on it is noticed after the hour
		"look": 9*time.Minute + 40*time.Second, "begin": 9*time.Minute + 40*time.Second, "end": 3*time.Minute + 40*time.Second,
	} {
		h := halt{timeout: time.Minute}
		look := func(d time.Duration, want bool) {
			t.Helper()
			if got := h.look(at(d)); (got != "") != want {
				t.Errorf("%s first: after %v: noticed %q", first, d, got)
			}
		}
		look(0, false)
		s := h.begins(validating, "it", now)
		look(lookEvery, false)
		look(20*time.Second, false) // late, as under load
		switch first {              // after an hour
		case "end":
			h.ends(s, at(time.Hour))
			if got := h.longest[validating]; got > 21*time.Second {
				t.Errorf("it took %v, want 20s or little more", got)
			}
			s = h.begins(validating, "another", at(time.Hour))
		case "begin":
			h.ends(h.begins(onDisk, "a write", at(time.Hour)), at(time.Hour))
			if got := h.longest[onDisk]; got != 0 {
				t.Errorf("a write took %v", got)
			}
		}
		look(time.Hour+lookEvery, false)
		for d := 20 * time.Second; d <= limit; d += 20 * time.Second {
			look(time.Hour+d, d == limit)
		}
		h.ends(s, at(time.Hour+11*time.Minute))
	}
}

// How the halt that TestHalted waits for is caused, and the timeout by which it is detected. The
// timeout of heartbeats is longer: a process that has to wait on a busy machine is not lost.
const (
	haltedAt    = "TRAIN_TEST_HALT"
	haltedAfter = "TRAIN_TEST_HALT_AFTER"
)

// TestHalted: process 0 runs and shows it, but makes no progress after its second step. The other
// one waits for it in the next step, or in a validation. Both processes end.
func TestHalted(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"eval.every=0", "step 3 has not ended for "},
		{"eval.every=1", "the validation after step 2 has not ended for "},
	} {
		t.Run(c.name, func(t *testing.T) {
			haltsWith(t, recipe(t, "train.batch_size=8", "checkpoint.every=6", c.name), 2*time.Second, c.want)
		})
	}
}

// haltsWith runs the recipe in two processes, both of which must end with an error that starts as
// given.
func haltsWith(t *testing.T, r *recipes.Recipe, after time.Duration, want string) {
	t.Helper()
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	togetherWith(t, text)
	t.Setenv(haltedAt, want)
	t.Setenv(haltedAfter, after.String())
	disttest.RunAborted(t, 2, "halt")
}

// stuck is a console that shows two steps and then blocks.
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
	if o.haltAfter, err = time.ParseDuration(os.Getenv(haltedAfter)); err != nil {
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
		run := Pretrain
		if isRun(r.Run.Out) {
			run = func(ctx context.Context, r *recipes.Recipe, o Options) (*Result, error) {
				return Resume(ctx, r.Run.Out, o)
			}
		}
		_, err := run(context.Background(), r, o)
		ended <- err
	}()
	if err := <-ended; err == nil || !strings.HasPrefix(err.Error(), os.Getenv(haltedAt)) {
		return fmt.Errorf("rank %d: %w, want %q", o.Place.Rank, err, os.Getenv(haltedAt))
	}
	return nil
}
