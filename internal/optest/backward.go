package optest

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/reference"
)

// weighted is the scalar sum of x's elements times weights, which turns an op's output into a loss.
func weighted(rank int, weights []float64) *graph.Spec {
	return &graph.Spec{
		Name:      "optest_weighted",
		Signature: "x" + dims(rank) + " -> s[]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				out[0].Data[0] += weights[i] * x
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				x, s := c.In[0], 0.0
				for i := range x.Rows {
					for j, v := range x.Row(i) {
						s += weights[i*x.Cols+j] * float64(v)
					}
				}
				c.Out[0].F32[0] = float32(s)
			}
		},
		Gradient: func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(weightedGrad(rank, weights), g.In[0])}
		},
	}
}

func weightedGrad(rank int, weights []float64) *graph.Spec {
	return &graph.Spec{
		Name:      "optest_weighted_dx",
		Signature: "x" + dims(rank) + " -> dx" + dims(rank),
		Reference: func(_ graph.Dims, _, out []graph.Array) { copy(out[0].Data, weights) },
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				dx := c.Out[0]
				for i := range dx.Rows {
					for j := range dx.Cols {
						dx.Row(i)[j] = float32(weights[i*dx.Cols+j])
					}
				}
			}
		},
	}
}

// dims writes as many symbols as a tensor has dimensions.
func dims(rank int) string {
	return [...]string{"[]", "[N]", "[R N]", "[B T N]", "[A B T N]"}[rank]
}

// Call is one op with random inputs.
type Call struct {
	*graph.Resolved
	In []graph.Array
}

// Backward is a case's backward pass as run by the reference: the plan, its memory, and the
// backward ops with their inputs.
type Backward struct {
	Plan    *graph.Plan
	Memory  *reference.Memory
	Calls   []Call
	weights []float64 // of the output's elements in the loss
}

// RunBackward builds the gradient of a weighted sum of a case's output 0 and runs it in float64.
func RunBackward(c graph.Case, r *graph.Resolved, in []graph.Array) (*Backward, error) {
	w := &Backward{weights: make([]float64, r.Out[0].Shape.Size())}
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range w.weights {
		w.weights[i] = float64(float32(rng.NormFloat64()))
	}
	if len(r.Out[0].Shape) == 0 {
		w.weights[0] = 1
	}
	var err error
	if w.Plan, err = GradientPlan(c, r, w.weights); err != nil {
		return nil, err
	}
	plan, m := w.Plan, reference.NewMemory(w.Plan)
	w.Memory = m
	for i, o := range r.In {
		if o.DType == graph.Int32 {
			m.Write(plan.Inputs[o.Name], in[i].Data)
		}
	}
	for _, p := range plan.Params {
		m.Write(paramSlot(p, graph.Params), inputNamed(r, in, p.Name).Data)
	}
	for i, step := range plan.Steps {
		args := make([]graph.Array, len(step.In))
		for k, s := range step.In {
			args[k] = m.Read(s)
			for e, x := range args[k].Data { // as the float32 kernel will see them
				args[k].Data[e] = float64(float32(x))
			}
		}
		one := *plan
		one.Steps = plan.Steps[i : i+1]
		if err := m.Run(&one); err != nil {
			return nil, err
		}
		if isBackward(step) {
			w.Calls = append(w.Calls, Call{step.Resolved, args})
		}
	}
	return w, nil
}

// GradientPlan is the forward and backward pass of a case. The loss is its output 0 if that is a
// scalar, otherwise the weighted sum of its elements.
func GradientPlan(c graph.Case, r *graph.Resolved, weights []float64) (*graph.Plan, error) {
	b := graph.NewBuilder(add.Spec)
	args := make([]graph.Tensor, len(r.In))
	for i, o := range r.In {
		switch {
		case o.Updated:
			args[i] = b.State(o.Name, o.Shape...)
		case o.DType == graph.Int32:
			args[i] = b.Input(o.Name, o.DType, o.Shape...)
		default:
			args[i] = b.Param(o.Name, nil, o.Shape...)
		}
	}
	loss := b.Apply(c.Spec, args...)
	if rank := len(r.Out[0].Shape); rank > 0 {
		loss = b.Apply(weighted(rank, weights), loss)
	}
	b.Result("loss", loss)
	if err := b.Gradients(loss); err != nil {
		return nil, err
	}
	return b.Compile()
}

// BackwardSteps returns the plan's steps that the op under test emitted for its gradient.
func BackwardSteps(p *graph.Plan) []graph.Step {
	var list []graph.Step
	for _, s := range p.Steps {
		if isBackward(s) {
			list = append(list, s)
		}
	}
	return list
}

func isBackward(s graph.Step) bool {
	return s.Backward && !strings.HasPrefix(s.Spec.Name, "optest_")
}

// gradient checks the backward pass against central differences, and each backward op against its
// reference. An op whose forward pass computes its gradients (a fused loss) has no backward op.
func gradient(t *testing.T, c graph.Case, r *graph.Resolved, in []graph.Array) {
	t.Helper()
	w, err := RunBackward(c, r, in)
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range w.Calls {
		kernel(t, call.Resolved, call.In)
	}
	for _, p := range w.Plan.Params {
		differences(t, r, in, p, w.Memory.Read(paramSlot(p, graph.Grads)), w.weights)
	}
	executor(t, w.Plan, r, in, w.Memory)
}

func paramSlot(p graph.ParamSlot, region graph.Region) graph.Slot {
	return graph.Slot{Region: region, Offset: p.Offset, Rows: p.Shape.Rows(), Cols: p.Shape.Cols(), Stride: p.Shape.Cols(), Shape: p.Shape}
}

func inputNamed(r *graph.Resolved, in []graph.Array, name string) graph.Array {
	for i, o := range r.In {
		if o.Name == name {
			return in[i]
		}
	}
	panic("optest: no input " + name)
}

// differences compares some elements of a gradient with central differences.
func differences(t *testing.T, r *graph.Resolved, in []graph.Array, p graph.ParamSlot, got graph.Array, weights []float64) {
	t.Helper()
	const checked, h = 24, 1e-5
	lossAt := func() float64 {
		_, out := Expected(r, in)
		s := 0.0
		for i, x := range out[0].Data {
			s += weights[i] * x
		}
		return s
	}
	x := inputNamed(r, in, p.Name)
	scale := 0.0
	for _, g := range got.Data {
		scale = math.Max(scale, math.Abs(g))
	}
	rng := rand.New(rand.NewPCG(11, 11))
	for n := range min(checked, len(x.Data)) {
		i := n
		if len(x.Data) > checked {
			i = rng.IntN(len(x.Data))
		}
		old := x.Data[i]
		x.Data[i] = old + h
		up := lossAt()
		x.Data[i] = old - h
		down := lossAt()
		x.Data[i] = old
		want := (up - down) / (2 * h)
		if d := math.Abs(got.Data[i] - want); !(d <= 2e-6*math.Max(scale, 1)) {
			t.Errorf("gradient of %s: element %d is %g, central differences give %g", p.Name, i, got.Data[i], want)
			return
		}
	}
}

// executor runs the whole plan on the CPU and compares its gradients.
func executor(t *testing.T, plan *graph.Plan, r *graph.Resolved, in []graph.Array, want *reference.Memory) {
	t.Helper()
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	mem, err := dev.NewMemory(plan.Sizes)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := dev.Load(plan, mem)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range r.In {
		if o.DType == graph.Int32 {
			ints := make([]int32, len(in[i].Data))
			for k, x := range in[i].Data {
				ints[k] = int32(x)
			}
			if err := prog.WriteInts(o.Name, ints); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range plan.Params {
		if err := mem.Write(graph.Params, p.Offset, float32s(inputNamed(r, in, p.Name).Data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := prog.Run(); err != nil {
		t.Fatal(err)
	}
	for _, p := range plan.Params {
		got := make([]float32, p.Shape.Size())
		if err := mem.Read(graph.Grads, p.Offset, got); err != nil {
			t.Fatal(err)
		}
		b := graph.Buffer{Rows: p.Shape.Rows(), Cols: p.Shape.Cols(), Stride: p.Shape.Cols(), F32: got}
		near(t, "executor: gradient of "+p.Name, b, want.Read(paramSlot(p, graph.Grads)), 10*Tolerance)
	}
}
