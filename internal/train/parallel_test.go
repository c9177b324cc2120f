package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/dist/disttest"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

func TestMain(m *testing.M) {
	disttest.Main(m, map[string]func() error{
		"steps": stepsTogether, "pretrain and stop": pretrainAndStop, "pretrain": pretrainTogether, "halt": haltTogether, "resume": resumeTogether,
		"sums": sumsTogether,
	})
}

// TestProcesses trains a model in 2 and 4 processes, with and without a sharded optimizer, and
// compares it with one process that sees all rows.
func TestProcesses(t *testing.T) {
	for _, n := range []int{2, 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { disttest.Run(t, n, "steps") })
	}
}

// TestSums: numbers beyond float32 are summed exactly, and all processes learn of a NaN or
// infinity.
func TestSums(t *testing.T) { disttest.Run(t, 3, "sums") }

func sumsTogether() error {
	comm, err := dist.NewMPI()
	if err != nil {
		return err
	}
	dev, err := cpu.New(1)
	if err != nil {
		return err
	}
	e, err := NewEngine(dev, samba(), adamw(), EngineConfig{MicroBatch: 1, SeqLen: 8, Comm: comm})
	if err != nil {
		return err
	}
	r := float64(comm.Rank())
	x := [exchanged]float64{1<<40 + r, math.Pi + r*1e-9, -1e-12 * r}
	if err := e.sums(&x); err != nil {
		return err
	}
	want := [exchanged]float64{3<<40 + 3, math.Pi + (math.Pi + 1e-9) + (math.Pi + 2e-9), -1e-12 + -2e-12}
	if x != want {
		return fmt.Errorf("sums are %v, want %v", x, want)
	}
	x = [exchanged]float64{math.Inf(1), 0, 1}
	if r == 1 {
		x[1] = math.NaN()
	}
	if err := e.sums(&x); err != nil {
		return err
	}
	if !math.IsInf(x[0], 1) || !math.IsNaN(x[1]) || x[2] != 3 {
		return fmt.Errorf("sums are %v, want +Inf, NaN and 3", x)
	}
	return comm.Close()
}

func TestParts(t *testing.T) {
	for _, x := range []float64{0, -1, 1.0 / 3, math.Pi * 1e20, -math.Sqrt2 * 1e-8, 1<<53 - 1, math.MaxFloat32, math.Inf(-1)} {
		parts := make([]float32, float32Parts)
		putParts(parts, x)
		if got := fromParts(parts); got != x {
			t.Errorf("%v comes back as %v", x, got)
		}
	}
}

// trained is the outcome of a few training steps.
type trained struct {
	params, moments []checkpoint.Tensor
	losses, norms   []float64
	nll             []float32 // of two other rows
}

// trainRows trains on this process's rows of a batch of 8, `micro` at a time.
func trainRows(comm graph.Comm, shard string, micro int) (*trained, error) {
	dev, err := cpu.New(1)
	if err != nil {
		return nil, err
	}
	return trainShare(dev, EngineConfig{MicroBatch: micro, SeqLen: 24, Comm: comm, Shard: shard, bucket: 3000}, optim.DecayAll)
}

// trainShare is trainRows on a device, with c's micro-batches and weight decay of all parameters,
// or of matrices.
func trainShare(dev graph.Device, c EngineConfig, decayed string) (*trained, error) {
	const rows, steps = 8, 3
	seq := c.SeqLen
	share, first := rows/c.processes(), 0
	if c.Comm != nil {
		first = c.Comm.Rank() * share
	}
	c.Accumulate = c.MicroBatch < share
	o := adamw()
	o.Decayed = decayed
	o.Eps = 1e-2 // a gradient that is only rounding error must not become a full step
	e, err := NewEngine(dev, samba(), o, c)
	if err != nil {
		return nil, err
	}
	if err := e.Init(1); err != nil {
		return nil, err
	}
	r := &trained{}
	for step := range int64(steps) {
		tokens, targets := batch(uint64(step), rows, seq, 61)
		if c.Unequal {
			leaveOut(targets, seq)
		}
		from, to := first*seq, (first+share)*seq
		loss, norm, err := e.Step(step, steps, tokens[from:to], targets[from:to])
		if err != nil {
			return nil, err
		}
		r.losses, r.norms = append(r.losses, loss), append(r.norms, norm)
	}
	eval, err := e.NewEvaluator(2, seq)
	if err != nil {
		return nil, err
	}
	nll, err := eval.Run(batch(99, 2, seq, 61))
	if err != nil {
		return nil, err
	}
	r.nll = slices.Clone(nll)
	r.params, r.moments, err = e.Snapshot()
	return r, err
}

// leaveOut leaves each of 8 rows a different number of targets, and one row none.
func leaveOut(targets []int32, seq int) {
	for row := range len(targets) / seq {
		for i := range seq * (7 - row) / 7 {
			targets[row*seq+i] = -1
		}
	}
	for i := range seq {
		targets[3*seq+i] = -1
	}
}

// TestUnequalTargets: the division of a batch changes neither loss nor gradients, although its rows
// have different numbers of targets, and no bits if they have the same number.
func TestUnequalTargets(t *testing.T) {
	train := func(micro int, unequal bool) *trained {
		t.Helper()
		r, err := trainShare(device(t, 1), EngineConfig{MicroBatch: micro, SeqLen: 24, Unequal: unequal}, optim.DecayAll)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	whole := train(8, true)
	for _, micro := range []int{4, 2, 1} {
		if err := train(micro, true).near(whole, 1); err != nil {
			t.Errorf("micro-batches of %d: %v", micro, err)
		}
	}
	tokens, targets := batch(1, 6, 24, 61)
	var bits []map[string][]float32
	for _, unequal := range []bool{false, true} {
		e, err := NewEngine(device(t, 1), samba(), adamw(), EngineConfig{MicroBatch: 2, SeqLen: 24, Accumulate: true, Unequal: unequal})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Init(1); err != nil {
			t.Fatal(err)
		}
		if _, _, err := e.Step(0, 1, tokens, targets); err != nil {
			t.Fatal(err)
		}
		bits = append(bits, region(t, e, graph.Params))
	}
	if d := sameBits(bits[0], bits[1]); d != "" {
		t.Errorf("of equal rows: %s", d)
	}
}

// unequalTogether is TestUnequalTargets for processes.
func unequalTogether(comm graph.Comm) error {
	train := func(c EngineConfig) (*trained, error) {
		dev, err := cpu.New(1)
		if err != nil {
			return nil, err
		}
		c.SeqLen, c.Unequal, c.bucket = 24, true, 3000
		return trainShare(dev, c, optim.DecayAll)
	}
	alone, err := train(EngineConfig{MicroBatch: 8})
	if err != nil {
		return err
	}
	for _, shard := range recipes.Shards {
		for _, micro := range []int{8 / comm.Size(), 1} {
			got, err := train(EngineConfig{MicroBatch: micro, Comm: comm, Shard: shard})
			if err != nil {
				return err
			}
			if err := got.near(alone, 1); err != nil {
				return fmt.Errorf("unequal rows, %d processes, shard %s, micro-batches of %d: %w", comm.Size(), shard, micro, err)
			}
		}
	}
	return nil
}

func stepsTogether() error {
	comm, err := dist.NewMPI()
	if err != nil {
		return err
	}
	alone, err := trainRows(nil, recipes.ShardNone, 8)
	if err != nil {
		return err
	}
	if err := roundedTogether(comm); err != nil {
		return err
	}
	if err := unequalTogether(comm); err != nil {
		return err
	}
	for _, shard := range recipes.Shards {
		for _, micro := range []int{8 / comm.Size(), 1} {
			got, err := trainRows(comm, shard, micro)
			if err != nil {
				return err
			}
			what := fmt.Sprintf("%d processes, shard %s, micro-batches of %d", comm.Size(), shard, micro)
			if err := got.near(alone, 1); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			again, err := trainRows(comm, shard, micro)
			if err != nil {
				return err
			}
			if err := got.same(again); err != nil {
				return fmt.Errorf("%s, the second time: %w", what, err)
			}
		}
	}
	return comm.Close()
}

// roundedTogether trains with products in bfloat16 except in the first sublayers. The processes
// start like a single one, which they would not if rounding were applied everywhere. Later the last
// bit of a norm decides how an operand is rounded.
func roundedTogether(comm graph.Comm) error {
	rounded := func(comm graph.Comm, shard string, sublayers int) (*trained, error) {
		dev, err := cpu.New(1)
		if err != nil {
			return nil, err
		}
		dev.RoundFactors()
		return trainShare(dev, EngineConfig{MicroBatch: 2, SeqLen: 24, Comm: comm, Shard: shard, Precision: layers.Precision{Float32Sublayers: sublayers}, bucket: 3000}, optim.DecayAll)
	}
	alone, err := rounded(nil, recipes.ShardNone, 3)
	if err != nil {
		return err
	}
	everywhere, err := rounded(nil, recipes.ShardNone, 0)
	if err != nil {
		return err
	}
	begins := func(r *trained) error {
		return (&trained{losses: r.losses[:1], norms: r.norms[:1]}).near(alone, 1)
	}
	if begins(everywhere) == nil {
		return errors.New("the first step does not show what is rounded")
	}
	for _, shard := range recipes.Shards {
		got, err := rounded(comm, shard, 3)
		if err != nil {
			return err
		}
		if err := errors.Join(begins(got), got.near(alone, 1000)); err != nil {
			return fmt.Errorf("%d processes, shard %s, sublayers in float32: %w", comm.Size(), shard, err)
		}
	}
	return nil
}

// near compares within float32 rounding error, or `times` that. A process may have only a part of
// what is wanted.
func (r *trained) near(want *trained, times float64) error {
	for i := range r.losses {
		if !(math.Abs(r.losses[i]-want.losses[i]) <= times*1e-6*want.losses[i]) || !(math.Abs(r.norms[i]-want.norms[i]) <= times*1e-5*want.norms[i]) {
			return fmt.Errorf("step %d: loss %v and norm %v, want %v and %v", i, r.losses[i], r.norms[i], want.losses[i], want.norms[i])
		}
	}
	for i, x := range r.nll {
		if !(math.Abs(float64(x-want.nll[i])) <= times*1e-5) {
			return fmt.Errorf("the cross-entropy of token %d is %v, want %v", i, x, want.nll[i])
		}
	}
	for _, part := range [][2][]checkpoint.Tensor{{r.params, want.params}, {r.moments, want.moments}} {
		whole := byName(part[1])
		for _, t := range part[0] {
			d, top := 0.0, 0.0
			if len(whole[t.Name]) < t.From+len(t.Data) {
				return fmt.Errorf("%s ends with element %d, and there are only %d", t.Name, t.From+len(t.Data), len(whole[t.Name]))
			}
			for i, x := range whole[t.Name] {
				top = math.Max(top, math.Abs(float64(x)))
				if at := i - t.From; at >= 0 && at < len(t.Data) {
					d = math.Max(d, math.Abs(float64(t.Data[at])-float64(x)))
				}
			}
			if !(d <= times*2e-5*top) {
				return fmt.Errorf("%s from element %d differs by %.1e of %.1e", t.Name, t.From, d, top)
			}
		}
	}
	return nil
}

// same compares bit for bit.
func (r *trained) same(want *trained) error {
	if !slices.Equal(r.losses, want.losses) || !slices.Equal(r.norms, want.norms) || !slices.Equal(r.nll, want.nll) {
		return fmt.Errorf("losses %v and norms %v, want %v and %v", r.losses, r.norms, want.losses, want.norms)
	}
	for _, part := range [][2][]checkpoint.Tensor{{r.params, want.params}, {r.moments, want.moments}} {
		if !equal(part[0], part[1]) {
			return fmt.Errorf("tensors differ")
		}
	}
	return nil
}

func byName(list []checkpoint.Tensor) map[string][]float32 {
	m := map[string][]float32{}
	for _, t := range list {
		m[t.Name] = t.Data
	}
	return m
}
