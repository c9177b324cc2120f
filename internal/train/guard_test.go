package train

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// state returns everything that training has learned.
func state(t *testing.T, e *Engine) []checkpoint.Tensor {
	t.Helper()
	model, moments, err := e.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(model, moments)
}

func equal(a, b []checkpoint.Tensor) bool {
	return slices.EqualFunc(a, b, func(a, b checkpoint.Tensor) bool {
		return slices.EqualFunc(a.Data, b.Data, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
	})
}

// TestSkippedUpdate: a step that the guard rejects changes neither parameters nor moments, and
// training continues as if its batch had never existed.
func TestSkippedUpdate(t *testing.T) {
	const rows, seq = 2, 16
	dev := device(t, 1)
	a, b := engine(t, dev, samba(), adamw(), rows, seq, false), engine(t, dev, samba(), adamw(), rows, seq, false)
	step := func(e *Engine, n int64) error {
		tokens, targets := batch(uint64(n), rows, seq, e.Model().VocabSize)
		_, _, err := e.Step(n, 9, tokens, targets)
		return err
	}
	if err := errors.Join(step(a, 0), step(b, 0)); err != nil {
		t.Fatal(err)
	}
	before := state(t, a)
	a.judge = func(float64) string { return "no" }
	if err := step(a, 1); !errors.Is(err, errSkipped) {
		t.Fatalf("error %v", err)
	}
	if !equal(before, state(t, a)) {
		t.Error("the skipped step changed something")
	}
	a.judge = nil
	a.CountSkipped(1)
	b.CountSkipped(1)
	if err := errors.Join(step(a, 2), step(b, 2)); err != nil {
		t.Fatal(err)
	}
	if !equal(state(t, a), state(t, b)) {
		t.Error("what follows differs")
	}
}

// TestNonFinite: a loss or gradient that isn't finite changes nothing either.
func TestNonFinite(t *testing.T) {
	dev := device(t, 1)
	e := engine(t, dev, samba(), adamw(), 2, 16, false)
	g := guard{Guard: recipes.Guard{SkipNonFinite: true}}
	e.judge = g.objection
	if err := e.mem.Write(graph.Params, e.params[0].Offset, []float32{float32(math.Inf(1))}); err != nil {
		t.Fatal(err)
	}
	before := state(t, e)
	tokens, targets := make([]int32, 32), make([]int32, 32)
	loss, norm, err := e.Step(0, 9, tokens, targets)
	reason, err := g.verdict(loss, norm, err)
	if err != nil || !strings.HasPrefix(reason, "the loss is ") {
		t.Errorf("reason %q (%v), loss %v, norm %v", reason, err, loss, norm)
	}
	if !equal(before, state(t, e)) {
		t.Error("the step changed something")
	}
}

func TestVerdict(t *testing.T) {
	inf := math.Inf(1)
	notFinite := fmt.Errorf("step 3: %w", optim.ErrNotFinite)
	on, off := guard{Guard: recipes.Guard{SkipNonFinite: true}}, guard{}
	broken := errors.New("broken")
	for _, c := range []struct {
		g          *guard
		loss, norm float64
		err        error
		reason     string
		want       error
	}{
		{&on, 1, 1, nil, "", nil},
		{&on, inf, 1, errSkipped, "the loss is +Inf", nil},
		{&on, 1, inf, notFinite, "the gradient's norm is +Inf", nil},
		{&on, 1, 1, broken, "", broken},
		{&off, 1, 1, nil, "", nil},
		{&off, inf, 1, nil, "", errDiverged},
		{&off, 1, inf, notFinite, "", errDiverged},
		{&off, 1, 1, broken, "", broken},
	} {
		if reason, err := c.g.verdict(c.loss, c.norm, c.err); reason != c.reason || !errors.Is(err, c.want) {
			t.Errorf("%+v: %q, %v", c, reason, err)
		}
	}
}

// TestSpikes: only losses far above the last ones are rejected, once there are enough of them, and
// skipped ones are not counted among them.
func TestSpikes(t *testing.T) {
	g := guard{Guard: recipes.Guard{MaxZ: 3, Window: 4}}
	var skipped []int
	for i, loss := range []float64{9, 1, 2, 1, 2, 1, 30, 31, 1, 2, 3.2, 0.1} {
		reason := g.objection(loss)
		if reason != "" {
			skipped = append(skipped, i)
		}
		g.count(loss, reason != "")
	}
	if !slices.Equal(skipped, []int{6, 7, 10}) || g.Skipped != 3 || g.InARow != 0 {
		t.Errorf("skipped %v, state %+v", skipped, g.guardState)
	}
	if want := []float64{1, 1, 2, 0.1}; !slices.Equal(g.Losses, want) {
		t.Errorf("remembers %v, want %v", g.Losses, want)
	}
	// A run that continues with a shorter window only considers the last losses.
	g = guard{Guard: recipes.Guard{MaxZ: 3, Window: 2}, guardState: guardState{Losses: []float64{40, 1, 2}}}
	if want := "the loss 9.0000 is 15.0 standard deviations above the last 2"; g.objection(9) != want {
		t.Errorf("objects %q, want %q", g.objection(9), want)
	}
}

// TestAbort: a run that only skips ends with the name of the last good checkpoint, and every skip
// is recorded.
func TestAbort(t *testing.T) {
	r := recipe(t, "train.steps=40", "optim.lr=1e25", "train.guard.skip_non_finite=true", "train.guard.abort_after=3", "eval.every=0", "checkpoint.every=1")
	_, err := Pretrain(t.Context(), r, quiet())
	if err == nil {
		t.Fatal("no error")
	}
	newest, _, loadErr := checkpoint.Newest(r.Run.Out)
	if loadErr != nil {
		t.Fatal(loadErr)
	}
	for _, part := range []string{"train.guard.abort_after: 3 steps in a row were skipped, the last is step ", "the last good checkpoint is " + newest.Dir, "sambatrain resume " + r.Run.Out} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error is %q, want it to say %q", err, part)
		}
	}
	skips := 0
	for _, rec := range records(t, r.Run.Out) {
		if rec.Event.Name == runlog.EventSkipped {
			skips++
		}
	}
	if skips != 3 {
		t.Errorf("%d skips on record", skips)
	}
}

// TestWithoutGuard: by default such a run ends at once.
func TestWithoutGuard(t *testing.T) {
	r := recipe(t, "train.steps=40", "optim.lr=1e25", "eval.every=0")
	if _, err := Pretrain(t.Context(), r, quiet()); err == nil || !strings.Contains(err.Error(), "training has diverged") {
		t.Errorf("error is %v", err)
	}
}

// TestWaitsAreWarnedOfOnce: a disk that is slower than the saves doesn't fill the log.
func TestWaitsAreWarnedOfOnce(t *testing.T) {
	var log bytes.Buffer
	s := openedSession(t, recipe(t, "train.steps=3"), &log)
	s.saver.sync = func() error {
		time.Sleep(20 * time.Millisecond)
		return nil
	}
	for s.step = range 4 {
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.finishSave(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "training waits"); n != 1 {
		t.Errorf("warned %d times:\n%s", n, log.String())
	}
}

// TestSaves: training only waits for a copy in memory, and for the previous save if it isn't
// finished, and reports this.
func TestSaves(t *testing.T) {
	var log bytes.Buffer
	s := openedSession(t, recipe(t, "train.steps=3"), &log)
	disk := make(chan struct{}) // a disk that writes when it is told to
	var before []int            // checkpoints that exist when the metrics are synced
	s.saver.sync = func() error {
		<-disk
		list, err := checkpoint.List(s.dir)
		before = append(before, len(list))
		return err
	}
	step := func(n int64) {
		t.Helper()
		s.step = n
		if err := s.save(); err != nil {
			t.Fatal(err)
		}
	}
	step(1)
	if _, ok := s.saver.ended(false); ok || s.saver.underway == nil {
		t.Fatal("the save did not go on in the background")
	}
	// The snapshot belongs to the save: training in the meantime doesn't change it.
	if err := s.engine.Init(99); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(log.String(), "training waits") {
		t.Fatalf("waited for nothing:\n%s", log.String())
	}
	go func() { disk <- struct{}{}; disk <- struct{}{} }()
	step(2)
	if !strings.Contains(log.String(), "training waits: the previous checkpoint is still being written") || !strings.Contains(log.String(), "checkpoint_of_step=1") {
		t.Errorf("the log does not say that training waited:\n%s", log.String())
	}
	if err := s.finishSave(); err != nil {
		t.Fatal(err)
	}
	list, err := checkpoint.List(s.dir)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v (%v)", list, err)
	}
	if !slices.Equal(before, []int{0, 1}) {
		t.Errorf("metrics are synced when there are %v checkpoints, want 0 and 1", before)
	}
	var saved [2][]checkpoint.Tensor
	for i, info := range list {
		c, err := checkpoint.Load(info.Dir)
		if err != nil {
			t.Fatal(err)
		}
		saved[i] = hostTensors(s.engine.params, "")
		if err := c.ReadModel(saved[i]); err != nil {
			t.Fatal(err)
		}
	}
	if equal(saved[0], saved[1]) {
		t.Error("both saves hold the same parameters")
	}
	stalls := 0
	for _, rec := range records(t, s.dir) {
		if rec.Event.Name == runlog.EventCheckpoint && rec.Event.StallMS != nil && *rec.Event.StallMS > 0 {
			stalls++
		}
	}
	if stalls != 2 {
		t.Errorf("%d stalls on record", stalls)
	}
}

// TestSkipsAreCounted: the optimizer knows of skipped updates, whose bias correction leaves them out.
func TestSkipsAreCounted(t *testing.T) {
	// A process that is not the first writes no records.
	s := &session{engine: engine(t, device(t, 1), samba(), adamw(), 1, 8, false), options: Options{Place: dist.Topology{Rank: 1, Size: 2}}}
	for _, reason := range []string{"a spike", "", "a spike"} {
		if err := s.skip(reason); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.engine.optim.Skipped; got != 2 || s.guard.Skipped != 2 {
		t.Errorf("the optimizer counts %d, the guard %d, want 2", got, s.guard.Skipped)
	}
}
