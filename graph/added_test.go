package graph_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// adding is y = a x whose gradient op can add another gradient to its output.
func adding(a float64) *graph.Spec {
	s := scale(a)
	s.Gradient = func(g *graph.Gradient) []graph.Tensor {
		return []graph.Tensor{g.Builder().Apply(addingGrad(a), g.DOut)}
	}
	return s
}

func addingGrad(a float64) *graph.Spec {
	s := elementwise("grad", 1, "", []int{0}, func(x []float64) float64 { return a * x[0] })
	s.Added = func() *graph.Spec {
		return elementwise("grad_add", 2, "", []int{1}, func(x []float64) float64 { return a*x[0] + x[1] })
	}
	return s
}

// TestAdded: where several gradients are summed, the op that computes the latest adds the others,
// unless something else reads its output.
func TestAdded(t *testing.T) {
	x := []float64{1, -2, 3, 0.5, 7, -1}
	for _, c := range []struct {
		name  string
		steps []string // of the backward pass, after the loss's own gradients
		build func(b *graph.Builder, p graph.Tensor) []graph.Tensor
	}{
		{"two readers", []string{"grad", "grad_add"}, func(b *graph.Builder, p graph.Tensor) []graph.Tensor {
			return []graph.Tensor{b.Apply(adding(2), p), b.Apply(adding(3), p)}
		}},
		{"three readers", []string{"grad", "grad_add", "grad_add"}, func(b *graph.Builder, p graph.Tensor) []graph.Tensor {
			return []graph.Tensor{b.Apply(adding(2), p), b.Apply(adding(3), p), b.Apply(adding(-1), p)}
		}},
		{"a reader that can't", []string{"scale", "grad_add"}, func(b *graph.Builder, p graph.Tensor) []graph.Tensor {
			return []graph.Tensor{b.Apply(adding(3), p), b.Apply(scale(2), p)}
		}},
		// The gradient of u + v is a term of u's sum and of v's.
		{"a term of two sums", nil, func(b *graph.Builder, p graph.Tensor) []graph.Tensor {
			u, v := b.Apply(scale(2), p), b.Apply(scale(7), p)
			both := b.Apply(adding(3), b.Add(u, v))
			return []graph.Tensor{both, b.Apply(adding(5), u), b.Apply(adding(-4), v)}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			p := b.Param("p", nil, 1, 2, 3)
			y := c.build(b, p)
			loss := b.Apply(total(len(y)), y...)
			b.Result("loss", loss)
			if err := b.Gradients(loss); err != nil {
				t.Fatal(err)
			}
			plan := compile(t, b)
			if c.steps != nil {
				var got []string
				for _, s := range plan.Steps {
					if s.Backward && s.Spec.Name != "weights" {
						got = append(got, s.Spec.Name)
					}
				}
				if diff := cmp.Diff(c.steps, got); diff != "" {
					t.Errorf("steps (-want +got):\n%s", diff)
				}
			}
			m := load(t, plan)
			m.param("p", x)
			m.run()
			// The loss is linear in p: its gradient is its change for a unit step.
			want := make([]float64, len(x))
			for e := range want {
				want[e] = lossAt(t, plan, x, e, 1) - lossAt(t, plan, x, e, 0)
			}
			m.gradient("p", want)
		})
	}
}

// TestAddedKeepsPrecision: in mixed precision a sum is float32 if a term is, also if an op adds it.
func TestAddedKeepsPrecision(t *testing.T) {
	double := func() *graph.Spec {
		s := elementwise("double", 1, "", nil, func(x []float64) float64 { return 2 * x[0] })
		s.Added = func() *graph.Spec {
			return elementwise("double_add", 2, "", []int{1}, func(x []float64) float64 { return 2*x[0] + x[1] })
		}
		return s
	}
	b := newBuilder()
	b.SetMixed(round.Spec())
	stream := b.Input("x", graph.Float32, 1, 2, 3)
	half := b.Apply(scale(3), stream)
	b.Result("wide", b.Add(stream, b.Apply(double(), half)))
	b.Result("narrow", b.Add(half, b.Apply(double(), half)))
	plan := compile(t, b)
	for name, want := range map[string]graph.DType{"wide": graph.Float32, "narrow": graph.BFloat16} {
		if got := plan.Results[name].DType; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	var steps []string
	for _, s := range plan.Steps {
		steps = append(steps, s.Spec.Name)
	}
	if diff := cmp.Diff([]string{"scale", "double_add", "double_add"}, steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// lossAt is the reference's loss with element e increased by h.
func lossAt(t *testing.T, plan *graph.Plan, x []float64, e int, h float64) float64 {
	t.Helper()
	moved := append([]float64{}, x...)
	moved[e] += h
	m := load(t, plan)
	m.param("p", moved)
	if err := m.ref.Run(plan); err != nil {
		t.Fatal(err)
	}
	return m.ref.Read(plan.Results["loss"]).Data[0]
}

// laterSlope is y = 2x, whose output 1 is x + 1.
func laterSlope() *graph.Spec {
	return &graph.Spec{
		Name: "later", Signature: "x[B T N] -> y[B T N], z[B T N]",
		Reference: func(_ graph.Dims, in, out []graph.Array) {
			for i, x := range in[0].Data {
				out[0].Data[i], out[1].Data[i] = 2*x, x+1
			}
		},
		CPU: func(c *graph.CPUCall) func() {
			return func() {
				for i, x := range c.In[0].Row(0) {
					c.Out[0].Row(0)[i], c.Out[1].Row(0)[i] = 2*x, x+1
				}
			}
		},
	}
}

// TestAddedLater: an op does not add a tensor that is computed after it.
func TestAddedLater(t *testing.T) {
	b := newBuilder()
	x := b.Input("x", graph.Float32, 1, 1, 2)
	y := b.Apply(addingGrad(3), x)
	b.Result("sum", b.Add(y, b.Apply(laterSlope(), x).Output(1)))
	m := load(t, compile(t, b))
	m.input("x", []float64{1, 2})
	m.run()
	m.result("sum", []float64{5, 9})
}

// TestAccumulatesBesideReaders: a gradient that another op reads is added to the earlier ones, and
// that op gets it alone.
func TestAccumulatesBesideReaders(t *testing.T) {
	b := newBuilder()
	b.SetAccumulate()
	w, p := b.Param("w", nil, 1, 1, 2), b.Param("p", nil, 1, 1, 2)
	// p's gradient, which adding's backward op computes and can add to, is that of the product, too.
	loss := b.Apply(total(1), b.Apply(adding(3), b.Add(b.Apply(mul(), w, b.Input("x", graph.Float32, 1, 1, 2)), p)))
	b.Result("loss", loss)
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	m := load(t, compile(t, b))
	m.param("w", []float64{1, 1})
	m.param("p", []float64{0, 0})
	m.input("x", []float64{5, 7})
	for runs := range 3 {
		m.run()
		n := float64(runs + 1)
		m.gradient("p", []float64{n * 3 * weight(0, 0), n * 3 * weight(0, 1)})
		m.gradient("w", []float64{n * 5 * 3 * weight(0, 0), n * 7 * 3 * weight(0, 1)})
	}
}

// TestResultsStay: a result is the tensor itself, even if the op that computes it could add to it.
func TestResultsStay(t *testing.T) {
	b := newBuilder()
	x, z := b.Input("x", graph.Float32, 1, 1, 2), b.Input("z", graph.Float32, 1, 1, 2)
	y := b.Apply(addingGrad(3), x)
	b.Result("y", y)
	b.Result("sum", b.Add(y, z))
	m := load(t, compile(t, b))
	m.input("x", []float64{1, 2})
	m.input("z", []float64{10, 20})
	m.run()
	m.result("y", []float64{3, 6})
	m.result("sum", []float64{13, 26})
}

// TestGradientsStay: a parameter's gradient that is also a term of another gradient's sum is not
// replaced by that sum.
func TestGradientsStay(t *testing.T) {
	for _, first := range []bool{true, false} { // the sum's other term is computed first, or last
		b := newBuilder()
		w, p := b.Param("w", nil, 1, 1, 2), b.Param("p", nil, 1, 1, 2)
		x := b.Apply(mul(), w, b.Input("x", graph.Float32, 1, 1, 2))
		var y, z graph.Tensor
		sum := func() { y = b.Apply(adding(3), b.Add(x, p)) }
		other := func() { z = b.Apply(adding(2), x) }
		if first { // backward ops run in reverse
			sum()
			other()
		} else {
			other()
			sum()
		}
		loss := b.Apply(total(2), y, z)
		b.Result("loss", loss)
		if err := b.Gradients(loss); err != nil {
			t.Fatal(err)
		}
		m := load(t, compile(t, b))
		m.param("w", []float64{1, 1})
		m.param("p", []float64{0, 0})
		m.input("x", []float64{5, 7})
		m.run()
		dp, dz := []float64{3 * weight(0, 0), 3 * weight(0, 1)}, []float64{2 * weight(1, 0), 2 * weight(1, 1)}
		m.gradient("p", dp)
		m.gradient("w", []float64{5 * (dp[0] + dz[0]), 7 * (dp[1] + dz[1])})
	}
}
