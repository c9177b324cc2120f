// Package optest is the one test harness of all ops. For each case of an op it
// checks that
//
//   - inputs of a wrong rank are refused;
//   - the CPU kernel agrees with the float64 reference, on every instruction set
//     that the machine has, with dense and with strided rows, writes every element
//     of its outputs and nothing beside them, and leaves its inputs alone;
//   - the same bits come out whatever the number of workers is;
//   - a run allocates nothing;
//   - the backward pass agrees with central differences of the reference, and each
//     backward op passes all of the above.
package optest

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/reference"
)

// Tolerance is the largest error of a float32 kernel, relative to the largest
// element of the tensor.
const Tolerance = 2e-5

// Run checks all cases that are not for benchmarks only.
func Run(t *testing.T, cases []graph.Case) {
	t.Helper()
	ran := 0
	for _, c := range cases {
		if c.Bench {
			continue
		}
		ran++
		t.Run(c.Spec.Name+"/"+c.Name, func(t *testing.T) { runCase(t, c) })
	}
	if ran == 0 {
		t.Fatal("no case to check")
	}
}

func runCase(t *testing.T, c graph.Case) {
	r, err := c.Spec.ResolveDims(c.Dims)
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, r)
	in := Draw(c, r)
	kernel(t, r, in)
	// An addition only hands its gradient on: there is no backward op to check.
	if c.Spec.Gradient != nil && c.Spec.Name != "add" {
		gradient(t, c, r, in)
	}
}

// refuses checks that each input is refused with one dimension too many.
func refuses(t *testing.T, r *graph.Resolved) {
	t.Helper()
	for i := range r.In {
		shapes := make([]graph.Shape, len(r.In))
		for k, o := range r.In {
			shapes[k] = o.Shape
		}
		shapes[i] = append(slices.Clone(shapes[i]), 2)
		if _, err := r.Spec.Resolve(shapes); err == nil {
			t.Errorf("input %s is accepted as %v", r.In[i].Name, shapes[i])
		}
	}
}

// Draw makes a case's inputs, each representable in float32.
func Draw(c graph.Case, r *graph.Resolved) []graph.Array {
	h := fnv.New64a()
	fmt.Fprint(h, c.Spec.Name, c.Name)
	rng := rand.New(rand.NewPCG(h.Sum64(), 1))
	in := make([]graph.Array, len(r.In))
	for i, o := range r.In {
		in[i] = graph.NewArray(o.Shape)
		if fill := c.Fill[o.Name]; fill != nil {
			fill(rng, in[i])
		} else {
			for k := range in[i].Data {
				in[i].Data[k] = rng.NormFloat64()
			}
		}
		for k, x := range in[i].Data {
			in[i].Data[k] = float64(float32(x))
		}
	}
	return in
}

func clone(list []graph.Array) []graph.Array {
	out := make([]graph.Array, len(list))
	for i, a := range list {
		out[i] = graph.Array{Shape: a.Shape, Data: slices.Clone(a.Data)}
	}
	return out
}

// Expected runs the reference. Updated inputs come back changed.
func Expected(r *graph.Resolved, in []graph.Array) (after, out []graph.Array) {
	after = clone(in)
	for _, o := range r.Out {
		out = append(out, graph.NewArray(o.Shape))
	}
	r.Spec.Reference(r.Dims, after, out)
	return after, out
}

// kernel compares the CPU kernel with the reference.
func kernel(t *testing.T, r *graph.Resolved, in []graph.Array) {
	t.Helper()
	after, out := Expected(r, in)
	for _, level := range simd.Levels() {
		restore := simd.Force(level)
		for _, pad := range []int{0, 5} {
			var first *run
			for _, workers := range []int{1, 2, 3} {
				name := fmt.Sprintf("%s (%v, row padding %d, %d workers)", r.Spec.Name, level, pad, workers)
				got := bindRun(r, in, pad, workers)
				got.kernel()
				if workers == 1 {
					first = got
					got.compare(t, name, r, after, out)
				} else if !slices.EqualFunc(first.memory, got.memory, sameBits) {
					t.Errorf("%s: other bits than with 1 worker", name)
				}
			}
			if pad == 0 && !r.Spec.Allocates && !slices.ContainsFunc(r.In, func(o graph.Operand) bool { return o.Updated }) {
				if n := testing.AllocsPerRun(2, first.kernel); n != 0 {
					t.Errorf("%s (%v): %v allocations a run", r.Spec.Name, level, n)
				}
			}
		}
		restore()
	}
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// guard is what memory holds that a kernel must not touch: a NaN with a payload.
var guard = math.Float32frombits(0x7fc5a5a5)

// run is a kernel bound to guarded buffers. Outputs start as NaN.
type run struct {
	kernel  func()
	memory  [][]float32 // each operand with its guard bands
	in, out []graph.Buffer
}

const band = 32

func bindRun(r *graph.Resolved, in []graph.Array, pad, workers int) *run {
	g := &run{}
	make1 := func(o graph.Operand, data []float64) graph.Buffer {
		b := graph.Buffer{Rows: o.Shape.Rows(), Cols: o.Shape.Cols()}
		b.Stride = b.Cols
		if o.Strided {
			b.Stride += pad
		}
		n := (b.Rows-1)*b.Stride + b.Cols
		if o.DType == graph.Int32 {
			b.I32 = make([]int32, n)
			for i, x := range data {
				b.I32[i] = int32(x)
			}
			return b
		}
		m := make([]float32, n+2*band)
		for i := range m {
			m[i] = guard
		}
		g.memory = append(g.memory, m)
		b.F32 = m[band : band+n : band+n]
		for i := range b.Rows {
			for j, row := 0, b.Row(i); j < b.Cols; j++ {
				row[j] = float32(math.NaN())
				if data != nil {
					row[j] = float32(data[i*b.Cols+j])
				}
			}
		}
		return b
	}
	for i, o := range r.In {
		g.in = append(g.in, make1(o, in[i].Data))
	}
	for _, o := range r.Out {
		g.out = append(g.out, make1(o, nil))
	}
	c := &graph.CPUCall{Dims: r.Dims, In: g.in, Out: g.out, Pool: testPool(workers)}
	if r.Spec.Workspace != nil {
		c.Workspace = make([]float32, r.Spec.Workspace(r.Dims, workers))
		for i := range c.Workspace {
			c.Workspace[i] = float32(math.NaN())
		}
	}
	g.kernel = r.Spec.CPU(c)
	return g
}

// testPool hands tasks to its workers in turn, on one goroutine: what a kernel
// computes must not depend on it, and races are the executor's tests' business.
type testPool int

func (p testPool) Workers() int { return int(p) }

func (p testPool) Run(tasks int, task func(task, worker int)) {
	for i := range tasks {
		if p > 1 {
			i = tasks - 1 - i
		}
		task(i, i%int(p))
	}
}

func (g *run) compare(t *testing.T, name string, r *graph.Resolved, after, out []graph.Array) {
	t.Helper()
	for i, o := range r.In {
		if o.DType == graph.Float32 {
			limit := 0.0
			if o.Updated {
				limit = Tolerance
			}
			near(t, name+": input "+o.Name, g.in[i], after[i], limit)
		}
	}
	for i, o := range r.Out {
		near(t, name+": output "+o.Name, g.out[i], out[i], Tolerance)
	}
	k := 0
	for _, list := range [][]graph.Buffer{g.in, g.out} {
		for _, b := range list {
			if b.I32 != nil {
				continue
			}
			m := g.memory[k]
			k++
			for i, x := range m {
				at := i - band
				inside := at >= 0 && at < len(b.F32) && at%b.Stride < b.Cols
				if !inside && math.Float32bits(x) != math.Float32bits(guard) {
					t.Fatalf("%s: wrote outside a buffer, at %d of %d", name, at, len(b.F32))
				}
			}
		}
	}
}

// near fails unless max|got-want| <= limit * max|want|.
func near(t *testing.T, name string, got graph.Buffer, want graph.Array, limit float64) {
	t.Helper()
	scale := 0.0
	for _, x := range want.Data {
		scale = math.Max(scale, math.Abs(x))
	}
	for i := range got.Rows {
		for j, x := range got.Row(i) {
			w := want.Data[i*got.Cols+j]
			if d := math.Abs(float64(x) - w); !(d <= limit*scale) {
				t.Errorf("%s: element (%d, %d) is %v, want %v (error %.2g of the largest, %g)", name, i, j, x, w, d/scale, scale)
				return
			}
		}
	}
}

// weighted is the scalar sum of x's elements times weights, so that an op's
// output becomes a loss.
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

// Call is one op with its inputs drawn.
type Call struct {
	*graph.Resolved
	In []graph.Array
}

// Backward is a case's backward pass as run by the reference: the plan, its
// memory, and the backward ops with the inputs that they had.
type Backward struct {
	Plan    *graph.Plan
	Memory  *reference.Memory
	Calls   []Call
	weights []float64 // of the output's elements in the loss
}

// RunBackward builds a case's gradient, of a weighted sum of its output 0, and runs
// it in float64.
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
			for e, x := range args[k].Data { // as the float32 kernel will get them
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

// GradientPlan is the forward and backward pass of a case. The loss is its output
// 0 where that is a scalar, otherwise the weighted sum of its elements.
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

// BackwardSteps are the plan's steps that the op under test emitted for its
// gradient.
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

// gradient checks the backward pass against central differences, and each
// backward op against its reference. An op whose forward pass makes its gradients
// (a fused loss) has no backward op.
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

func float32s(x []float64) []float32 {
	y := make([]float32, len(x))
	for i, v := range x {
		y[i] = float32(v)
	}
	return y
}

// Buffer is a dense float32 copy of an array.
func Buffer(a graph.Array) graph.Buffer {
	return graph.Buffer{Rows: a.Shape.Rows(), Cols: a.Shape.Cols(), Stride: a.Shape.Cols(), F32: float32s(a.Data)}
}

// Near fails unless max|got-want| <= Tolerance * max|want|.
func Near(t *testing.T, name string, got []float32, want []float64) {
	t.Helper()
	scale := 0.0
	for _, w := range want {
		scale = math.Max(scale, math.Abs(w))
	}
	for i, w := range want {
		if !(math.Abs(float64(got[i])-w) <= Tolerance*scale) {
			t.Fatalf("%s: element %d is %v, want %v", name, i, got[i], w)
		}
	}
}
