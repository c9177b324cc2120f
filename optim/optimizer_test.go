package optim_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/optim"
)

// The model has n parameters, the last `padding` of which are always zero, like the gaps between
// parameters in the flat regions.
const (
	n       = 2<<16 + 48 // three blocks of the kernels
	padding = 11
	steps   = 5
	total   = 8
)

// machine is a device with a model's memory and an optimizer.
type machine struct {
	mem graph.Memory
	opt *optim.Optimizer
}

func newMachine(t *testing.T, threads int, o optim.AdamW) *machine {
	return newMachineOf(t, threads, o, nil, false)
}

// newMachineOf has n parameters with the layout of params, and with mixed also their bfloat16 copy.
func newMachineOf(t *testing.T, threads int, o optim.AdamW, params []graph.ParamSlot, mixed bool) *machine {
	t.Helper()
	dev, err := cpu.New(threads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	var sizes [graph.Regions]int
	for _, r := range []graph.Region{graph.Params, graph.Grads, graph.ExpAvg, graph.ExpAvgSq} {
		sizes[r] = n
	}
	if mixed {
		sizes[graph.Shadow] = n / 2
	}
	mem, err := dev.NewMemory(sizes)
	if err != nil {
		t.Fatal(err)
	}
	opt, err := optim.New(dev, mem, params, n, o, mixed, optim.Shard{})
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{mem, opt}
	m.write(t, graph.Params, draw(0, 1))
	return m
}

func (m *machine) write(t *testing.T, r graph.Region, x []float32) {
	t.Helper()
	if err := m.mem.Write(r, 0, x); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) read(t *testing.T, r graph.Region) []float32 {
	t.Helper()
	x := make([]float32, n)
	if err := m.mem.Read(r, 0, x); err != nil {
		t.Fatal(err)
	}
	return x
}

// draw returns a vector of normal numbers with zeros in the padding.
func draw(seed uint64, size float64) []float32 {
	r := rand.New(rand.NewPCG(seed, 5))
	x := make([]float32, n)
	for i := range n - padding {
		x[i] = float32(size * r.NormFloat64())
	}
	return x
}

// gradient returns the gradient of a step's micro-batch. Norms start near 3.6 and fall below 1.
func gradient(step, microBatch int) []float32 {
	return draw(uint64(100+10*step+microBatch), 0.01/float64(1+step*step))
}

// train does all steps and returns the norms.
func (m *machine) train(t *testing.T, microBatches int) []float64 {
	t.Helper()
	var norms []float64
	for step := range steps {
		sum := make([]float32, n)
		for k := range microBatches {
			for i, x := range gradient(step, k) {
				sum[i] += x
			}
		}
		m.write(t, graph.Grads, sum)
		norm, err := m.opt.Step(int64(step), total, microBatches)
		if err != nil {
			t.Fatal(err)
		}
		norms = append(norms, norm)
	}
	return norms
}

// trainReference does the same in float64, following AdamW's paper.
func trainReference(o optim.AdamW, microBatches int) (p, m, v, norms []float64) {
	p, m, v = make([]float64, n), make([]float64, n), make([]float64, n)
	for i, x := range draw(0, 1) {
		p[i] = float64(x)
	}
	for step := range steps {
		g, norm := make([]float64, n), 0.0
		for k := range microBatches {
			for i, x := range gradient(step, k) {
				g[i] += float64(x) / float64(microBatches)
			}
		}
		for _, x := range g {
			norm += x * x
		}
		norm = math.Sqrt(norm)
		norms = append(norms, norm)
		if clip := o.GradClip / (norm + 1e-6); o.GradClip > 0 && clip < 1 { // as torch.nn.utils.clip_grad_norm_
			for i := range g {
				g[i] *= clip
			}
		}
		lr := o.LR(int64(step), total)
		for i, x := range g {
			m[i] = o.Betas[0]*m[i] + (1-o.Betas[0])*x
			v[i] = o.Betas[1]*v[i] + (1-o.Betas[1])*x*x
			mHat := m[i] / (1 - math.Pow(o.Betas[0], float64(step+1)))
			vHat := v[i] / (1 - math.Pow(o.Betas[1], float64(step+1)))
			p[i] -= lr * (o.WeightDecay*p[i] + mHat/(math.Sqrt(vHat)+o.Eps))
		}
	}
	return p, m, v, norms
}

func settings(clip float64) optim.AdamW {
	o, warmup := optim.DefaultAdamW(), int64(1)
	o.PeakLR, o.WarmupSteps, o.GradClip = 2e-3, &warmup, clip
	return o
}

func near(t *testing.T, name string, got []float32, want []float64) {
	t.Helper()
	scale := 0.0
	for _, w := range want {
		scale = math.Max(scale, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= 1e-6*scale) {
			t.Fatalf("%s: element %d is %v, want %v (largest %v)", name, i, got[i], w, scale)
		}
	}
}

func TestSteps(t *testing.T) {
	for _, c := range []struct {
		name         string
		clip         float64
		microBatches int
	}{
		{"clipped", 1, 1},
		{"not clipped", 0, 1},
		{"three micro-batches", 1, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := settings(c.clip)
			p, m, v, norms := trainReference(o, c.microBatches)
			if !(norms[0] > 1.5 && norms[steps-1] < 0.9) {
				t.Fatalf("norms %v don't lie on both sides of the clip", norms)
			}
			var first *machine
			for _, threads := range []int{1, 2} {
				got := newMachine(t, threads, o)
				for i, norm := range got.train(t, c.microBatches) {
					if !(math.Abs(norm-norms[i]) <= 1e-6*norms[i]) {
						t.Errorf("norm of step %d is %v, want %v", i, norm, norms[i])
					}
				}
				near(t, "parameters", got.read(t, graph.Params), p)
				near(t, "first moment", got.read(t, graph.ExpAvg), m)
				near(t, "second moment", got.read(t, graph.ExpAvgSq), v)
				for _, r := range []graph.Region{graph.Params, graph.ExpAvg, graph.ExpAvgSq} {
					x := got.read(t, r)
					if slices.ContainsFunc(x[n-padding:], func(x float32) bool { return x != 0 }) {
						t.Errorf("the padding of %v is %v", r, x[n-padding:])
					}
					if first != nil && !slices.EqualFunc(x, first.read(t, r), sameBits) {
						t.Errorf("%v: other bits with 2 threads than with 1", r)
					}
				}
				first = got
			}
		})
	}
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

func TestGradientThatIsNotFinite(t *testing.T) {
	m := newMachine(t, 1, settings(0))
	m.train(t, 1)
	before := map[graph.Region][]float32{}
	for _, r := range []graph.Region{graph.Params, graph.ExpAvg, graph.ExpAvgSq} {
		before[r] = m.read(t, r)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
		g := gradient(0, 0)
		g[n/2] = float32(bad)
		m.write(t, graph.Grads, g)
		norm, err := m.opt.Step(steps, total, 1)
		if !errors.Is(err, optim.ErrNotFinite) {
			t.Errorf("gradient with %v: error is %v", bad, err)
		}
		if !math.IsNaN(norm) && !math.IsInf(norm, 1) {
			t.Errorf("gradient with %v: norm is %v", bad, norm)
		}
		for r, x := range before {
			if !slices.EqualFunc(m.read(t, r), x, sameBits) {
				t.Errorf("gradient with %v: %v changed", bad, r)
			}
		}
	}
}

func TestStepRefusesNoMicroBatch(t *testing.T) {
	m := newMachine(t, 1, settings(1))
	const want = "0 micro-batches make no gradient"
	if _, err := m.opt.Step(4, total, 0); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want %q", err, want)
	}
	if !slices.Equal(m.read(t, graph.Params), draw(0, 1)) {
		t.Error("a refused step changed the parameters")
	}
}

// TestSkipped: the bias correction doesn't count skipped updates.
func TestSkipped(t *testing.T) {
	o, none := settings(1), int64(0)
	o.Schedule, o.WarmupSteps = optim.Constant, &none
	first, later := newMachine(t, 1, o), newMachine(t, 1, o)
	later.opt.Skipped = 3
	for step, m := range map[int64]*machine{0: first, 3: later} {
		m.write(t, graph.Grads, gradient(0, 0))
		if _, err := m.opt.Step(step, total, 1); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.EqualFunc(first.read(t, graph.Params), later.read(t, graph.Params), sameBits) {
		t.Error("the first update after three skipped ones is not that of step 0")
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	m := newMachine(t, 2, settings(1))
	allocations := testing.AllocsPerRun(3, func() {
		if _, err := m.opt.Step(3, total, 2); err != nil {
			t.Fatal(err)
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations per step", allocations)
	}
}

func TestNewRefusesSmallMemory(t *testing.T) {
	dev, err := cpu.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	mem, err := dev.NewMemory([graph.Regions]int{graph.Params: n, graph.Grads: n, graph.ExpAvg: n})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := optim.New(dev, mem, nil, n, settings(1), false, optim.Shard{}); err == nil || !strings.Contains(err.Error(), "exp_avg_sq") {
		t.Errorf("no second moment: error is %v", err)
	}
}
