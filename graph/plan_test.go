package graph_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
)

// TestDeadCode: a plan does not contain what no result, gradient or state needs.
func TestDeadCode(t *testing.T) {
	b := newBuilder()
	x := b.Input("x", graph.Float32, 1, 2, 3)
	p := b.Param("p", nil, 1, 2, 3)
	y := b.Apply(mul(), x, p)
	b.Apply(scale(5), b.Apply(mirror(), y))
	b.Columns(y, 0, 1)
	b.Result("kept", b.Apply(scale(7), x))
	b.Apply(count(), b.State("s", 1, 2, 3), b.Apply(scale(3), x))
	loss := b.Apply(total(1), y)
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	// Not needed: mirror and scale(5), the loss itself, the gradient of x.
	want := []string{"mul", "scale", "scale", "count", "weights", "mul"}
	if diff := cmp.Diff(want, steps(compile(t, b))); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// TestChainTakesOneBlock: ops that work in place need no second buffer.
func TestChainTakesOneBlock(t *testing.T) {
	build := func(n int, op func() *graph.Spec) *graph.Plan {
		b := newBuilder()
		y := b.Input("x", graph.Float32, 2, 3, 8)
		for range n {
			y = b.Apply(op(), y)
		}
		b.Result("y", y)
		return compile(t, b)
	}
	double := func() *graph.Spec { return scale(2) }
	if got := build(10, double).Sizes[graph.Arena]; got != 48 {
		t.Errorf("10 ops in place take %d elements, want 48", got)
	}
	if got := build(10, mirror).Sizes[graph.Arena]; got != 96 {
		t.Errorf("10 ops that can't work in place take %d elements, want 96", got)
	}
}

// TestInPlace: a buffer is reused only when nothing else needs its contents.
func TestInPlace(t *testing.T) {
	values := []float64{1, -2, 3, 5, 0.5, 7}
	for _, c := range []struct {
		name  string
		build func(b *graph.Builder, x graph.Tensor) graph.Tensor
		want  func(x float64) float64
		// taken says whether the last step overwrites one of its inputs.
		taken bool
	}{
		{"last reader", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			return b.Apply(scale(3), b.Apply(scale(2), x))
		}, func(x float64) float64 { return 6 * x }, true},
		{"the second input", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			return b.Apply(mul(), x, b.Apply(scale(2), x))
		}, func(x float64) float64 { return 2 * x * x }, true},
		{"an input of the graph", func(b *graph.Builder, x graph.Tensor) graph.Tensor { return b.Apply(scale(3), x) },
			func(x float64) float64 { return 3 * x }, false},
		{"read later", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			y := b.Apply(scale(2), x)
			b.Result("later", b.Apply(scale(5), b.Apply(mirror(), y)))
			z := b.Apply(scale(3), y)
			return b.Add(b.Apply(mirror(), b.Apply(mirror(), z)), y)
		}, func(x float64) float64 { return 8 * x }, true},
		{"a result", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			y := b.Apply(scale(2), x)
			b.Result("also", y)
			return b.Apply(scale(3), y)
		}, func(x float64) float64 { return 6 * x }, false},
		{"columns are a result", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			y := b.Apply(scale(2), x)
			b.Result("part", b.Columns(y, 0, 1))
			return b.Apply(scale(3), y)
		}, func(x float64) float64 { return 6 * x }, false},
		{"the same tensor twice", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			y := b.Apply(scale(2), x)
			return b.Apply(mul(), y, y)
		}, func(x float64) float64 { return 4 * x * x }, false},
		{"the same tensor as all columns", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			y := b.Apply(scale(2), x)
			return b.Apply(mul(), y, b.Columns(y, 0, 3))
		}, func(x float64) float64 { return 4 * x * x }, false},
		{"columns of a wider tensor", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			wide := b.Apply(&graph.Spec{
				Name: "widen", Signature: "x[B T N] -> y[B T 2*N]",
				Reference: func(_ graph.Dims, in, out []graph.Array) {
					for i := range in[0].Shape.Rows() {
						copy(out[0].Row(i), in[0].Row(i))
						copy(out[0].Row(i)[3:], in[0].Row(i))
					}
				},
				CPU: func(c *graph.CPUCall) func() {
					return func() {
						for i := range c.In[0].Rows {
							copy(c.Out[0].Row(i), c.In[0].Row(i))
							copy(c.Out[0].Row(i)[3:], c.In[0].Row(i))
						}
					}
				},
			}, x)
			return b.Apply(scale(3), b.Columns(wide, 0, 3))
		}, func(x float64) float64 { return 3 * x }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			b.Result("y", c.build(b, b.Input("x", graph.Float32, 1, 2, 3)))
			p := compile(t, b)
			last := p.Steps[len(p.Steps)-1]
			out := last.Out[0]
			taken := slices.ContainsFunc(last.In, func(in graph.Slot) bool { return in.Region == out.Region && in.Offset == out.Offset })
			if taken != c.taken {
				t.Errorf("takes an input's buffer over: %v, want %v\n%v", taken, c.taken, p)
			}
			var want []float64
			for _, x := range values {
				want = append(want, c.want(x))
			}
			m := load(t, p)
			for range 2 { // the second run must not see what the first left
				m.input("x", values)
				m.run()
				m.result("y", want)
			}
			if _, ok := p.Results["also"]; ok {
				m.result("also", []float64{2, -4, 6, 10, 1, 14})
			}
			if _, ok := p.Results["part"]; ok {
				m.result("part", []float64{2, 10})
			}
		})
	}
}

// TestGradientsAreNotOverwritten: a parameter's gradient that the backward pass
// also reads elsewhere stays where the optimizer looks for it.
func TestGradientsAreNotOverwritten(t *testing.T) {
	b := newBuilder()
	p := b.Param("p", nil, 1, 2, 3)
	q := b.Param("q", nil, 1, 2, 3)
	// p's gradient is also that of scale's output, whose backward op works in place.
	y := b.Add(b.Apply(scale(3), b.Apply(scale(2), q)), p)
	loss := b.Apply(total(1), b.Apply(mirror(), y))
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	plan := compile(t, b)
	m := load(t, plan)
	m.param("p", make([]float64, 6))
	m.param("q", make([]float64, 6))
	m.run()
	var dp, dq []float64
	for row := range 2 {
		for col := range 3 {
			g := weight(0, row*3+2-col)
			dp, dq = append(dp, g), append(dq, 6*g)
		}
	}
	m.gradient("p", dp)
	m.gradient("q", dq)
	for i, s := range plan.Params {
		if s.Offset%16 != 0 || i > 0 && s.Offset < plan.Params[i-1].Offset+6 {
			t.Errorf("parameters lie at %+v", plan.Params)
		}
	}
	if plan.Sizes[graph.Grads] != plan.Sizes[graph.Params] {
		t.Errorf("regions are %v", plan.Sizes)
	}
}

// TestGradientAsResult: a gradient may be read as a result and also be used further.
func TestGradientAsResult(t *testing.T) {
	b := newBuilder()
	p := b.Param("p", nil, 1, 2, 3)
	var seen graph.Tensor
	spy := scale(2)
	plain := spy.Gradient
	spy.Gradient = func(g *graph.Gradient) []graph.Tensor {
		seen = g.DOut
		return plain(g)
	}
	loss := b.Apply(total(1), b.Apply(spy, p))
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	b.Result("dy", seen)
	m := load(t, compile(t, b))
	m.run()
	dp := weightsOf(0, 6)
	m.result("dy", dp)
	for i := range dp {
		dp[i] *= 2
	}
	m.gradient("p", dp)
}

// TestResultsThatAreNoSteps: inputs, parameters and states can be read back.
func TestResultsThatAreNoSteps(t *testing.T) {
	b := newBuilder()
	x := b.Input("x", graph.Float32, 1, 2, 3)
	p := b.Param("p", nil, 1, 2, 3)
	s := b.State("s", 1, 2, 3)
	b.Result("input", x)
	b.Result("param", p)
	b.Result("state", s)
	b.Result("columns", b.Columns(p, 1, 2))
	b.Apply(count(), s, x)
	plan := compile(t, b)
	if plan.Sizes[graph.Arena] != 16 { // count's output, which nothing reads
		t.Errorf("the arena has %d elements", plan.Sizes[graph.Arena])
	}
	m := load(t, plan)
	m.input("x", []float64{1, 2, 3, 4, 5, 6})
	m.param("p", []float64{7, 8, 9, 10, 11, 12})
	m.run()
	m.result("input", []float64{1, 2, 3, 4, 5, 6})
	m.result("param", []float64{7, 8, 9, 10, 11, 12})
	m.result("state", []float64{1, 2, 3, 4, 5, 6})
	m.result("columns", []float64{8, 11})
	m.run()
	m.result("state", []float64{2, 4, 6, 8, 10, 12})
	m.prog.ResetStates()
	clear(m.ref[graph.States])
	m.run()
	m.result("state", []float64{1, 2, 3, 4, 5, 6})
}

// TestStates: an op that updates a state runs whether or not its output is read, and in program
// order.
func TestStates(t *testing.T) {
	b := newBuilder()
	x := b.Input("x", graph.Float32, 1, 1, 2)
	var s graph.Tensor
	b.Scope("layer", func() { s = b.State("s", 1, 1, 2) })
	b.Apply(count(), b.State("second", 1, 1, 2), x)
	b.Result("before", b.Apply(scale(1), s))
	b.Apply(count(), s, x)
	b.Result("between", b.Apply(scale(1), s))
	b.Result("after", b.Apply(count(), s, x))
	p := compile(t, b)
	const aligned = 256 / 4 // a state begins where a line of a GPU's memory does
	if slot, ok := p.States["layer.s"]; !ok || slot.Region != graph.States || p.States["second"].Offset != aligned || p.Sizes[graph.States] != 2*aligned {
		t.Errorf("states are %v in %d elements", p.States, p.Sizes[graph.States])
	}
	m := load(t, p)
	m.input("x", []float64{1, 10})
	for run := range 3 {
		m.run()
		n := float64(2 * run)
		m.result("before", []float64{n, 10 * n})
		m.result("between", []float64{n + 1, 10 * (n + 1)})
		m.result("after", []float64{n + 2, 10 * (n + 2)})
	}
}

// TestWholeRegions: ops over flat buffers see the whole region, padding included.
func TestWholeRegions(t *testing.T) {
	move := &graph.Spec{
		Name: "move", Signature: "p![N], g[N] ->",
		Reference: func(_ graph.Dims, in, _ []graph.Array) {
			for i, g := range in[1].Data {
				in[0].Data[i] -= g
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				for i, g := range c.In[1].F32 {
					c.In[0].F32[i] -= g
				}
			}
		},
	}
	b := newBuilder()
	b.Apply(move, b.Whole(graph.Params, 37), b.Whole(graph.ExpAvg, 37))
	p := compile(t, b)
	if p.Sizes[graph.Params] != 37 || p.Sizes[graph.ExpAvg] != 37 || p.Sizes[graph.Arena] != 0 {
		t.Errorf("regions are %v", p.Sizes)
	}
	m := load(t, p)
	ones := make([]float32, 37)
	for i := range ones {
		ones[i] = 1
	}
	if err := m.mem.Write(graph.ExpAvg, 0, ones); err != nil {
		t.Fatal(err)
	}
	m.run()
	got := make([]float32, 37)
	if err := m.mem.Read(graph.Params, 0, got); err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(got, func(x float32) bool { return x != -1 }); i >= 0 {
		t.Errorf("element %d is %v", i, got[i])
	}
}

func TestPlanString(t *testing.T) {
	b := newBuilder()
	b.Scope("layer", func() { b.Result("y", b.Apply(scale(2), b.Input("x", graph.Float32, 1, 2, 3))) })
	if got, want := compile(t, b).String(), "   0 scale                    layer [1 2 3] float32@arena+0\n"; got != want {
		t.Errorf("plan is %q, want %q", got, want)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range graph.Regions {
		name := r.String()
		if name == "" || strings.Contains(name, "(") || seen[name] {
			t.Errorf("region %d is called %q", uint8(r), name)
		}
		seen[name] = true
	}
	if got := graph.Regions.String(); !strings.Contains(got, "Region(") {
		t.Errorf("no region is called %q", got)
	}
	for _, d := range []graph.DType{graph.Float32, graph.Int32, graph.BFloat16} {
		if strings.Contains(d.String(), "(") || d.Size() == 0 {
			t.Errorf("type %d is called %v, of %d bytes", uint8(d), d, d.Size())
		}
	}
}

// TestSameGraphSamePlan: nothing depends on the order of a map.
func TestSameGraphSamePlan(t *testing.T) {
	build := func() *graph.Plan {
		g := &program{r: rand.New(rand.NewPCG(3, 4)), b: newBuilder()}
		g.build(60)
		return compile(t, g.b)
	}
	first := build()
	for range 5 {
		if diff := cmp.Diff(first.String(), build().String()); diff != "" {
			t.Fatalf("two plans of one graph differ:\n%s", diff)
		}
	}
}
