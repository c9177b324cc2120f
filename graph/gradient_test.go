package graph_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
)

// weightsOf is total's gradient for an input of n elements.
func weightsOf(input, n int) []float64 {
	w := make([]float64, n)
	for e := range w {
		w[e] = weight(input, e)
	}
	return w
}

func TestTiedParameter(t *testing.T) {
	b := newBuilder()
	w := b.Param("w", nil, 1, 2, 2)
	x := b.Input("x", graph.Float32, 1, 2, 2)
	again := b.Param("w", nil, 1, 2, 2)
	loss := b.Apply(total(3), b.Apply(mul(), x, w), b.Apply(scale(3), again), w)
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	m := load(t, compile(t, b))
	values := []float64{1, -2, 3, 5}
	m.param("w", []float64{2, 2, 2, 2})
	m.input("x", values)
	m.run()
	want := make([]float64, 4)
	for e := range want {
		want[e] = weight(0, e)*values[e] + 3*weight(1, e) + weight(2, e)
	}
	m.gradient("w", want)
}

func TestSameTensorTwice(t *testing.T) {
	b := newBuilder()
	w := b.Param("w", nil, 1, 2, 2)
	y := b.Apply(mul(), w, w)
	loss := b.Apply(total(2), b.Add(y, y), b.Add(y, w))
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	m := load(t, compile(t, b))
	values := []float64{1, -2, 3, 5}
	m.param("w", values)
	m.run()
	want := make([]float64, 4)
	for e := range want {
		want[e] = (2*weight(0, e)+weight(1, e))*2*values[e] + weight(1, e)
	}
	m.gradient("w", want)
}

func TestGradientErrors(t *testing.T) {
	constant := &graph.Spec{Name: "constant", Signature: "x[B T N] -> y[B T N]"}
	broken := func(f func(g *graph.Gradient) []graph.Tensor) *graph.Spec {
		return &graph.Spec{Name: "broken", Signature: "x[B T N], w[B T N] -> y[B T N], extra[B T N]", Gradient: f}
	}
	for _, c := range []struct {
		name string
		loss func(b *graph.Builder, p graph.Tensor) graph.Tensor
		want []string
	}{
		{"unused parameter", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			b.Scope("layer", func() { b.Param("idle", nil, 3) })
			return b.Apply(total(1), p)
		}, []string{"backward pass: the loss does not depend on parameter layer.idle"}},
		{"used beside the loss only", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			b.Result("r", b.Apply(scale(2), b.Param("aside", nil, 1, 2, 3)))
			return b.Apply(total(1), p)
		}, []string{"the loss does not depend on parameter aside"}},
		{"not a scalar", func(b *graph.Builder, p graph.Tensor) graph.Tensor { return b.Apply(scale(2), p) },
			[]string{"backward pass: the loss must be a float32 scalar, is float32 [1 2 3]"}},
		{"missing", func(*graph.Builder, graph.Tensor) graph.Tensor { return graph.Tensor{} }, []string{"backward pass: the loss is missing"}},
		{"no gradient", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			var y graph.Tensor
			b.Scope("layer", func() { y = b.Apply(constant, p) })
			return b.Apply(total(2), y, p)
		}, []string{"layer: constant has no gradient"}},
		{"through output 1", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			var y graph.Tensor
			b.Scope("layer", func() { y = b.Apply(square(), p) })
			return b.Apply(total(2), y, y.Output(1))
		}, []string{"layer: square: output slope can't be differentiated"}},
		{"too few gradients", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			return b.Apply(total(1), b.Apply(broken(func(g *graph.Gradient) []graph.Tensor { return []graph.Tensor{g.DOut} }), p, p))
		}, []string{"broken: the gradient has 1 parts for 2 inputs"}},
		{"a gradient is missing", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			return b.Apply(total(1), b.Apply(broken(func(g *graph.Gradient) []graph.Tensor { return []graph.Tensor{g.DOut, {}} }), p, p))
		}, []string{"broken: no gradient for w"}},
		{"a gradient of another shape", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			return b.Apply(total(1), b.Apply(broken(func(g *graph.Gradient) []graph.Tensor {
				return []graph.Tensor{g.DOut, g.Builder().Columns(g.DOut, 0, 1)}
			}), p, p))
		}, []string{"broken: gradient of w is [1 2 1], not [1 2 3]"}},
		{"an op fails in the backward pass", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			var y graph.Tensor
			b.Scope("layer", func() {
				y = b.Apply(broken(func(g *graph.Gradient) []graph.Tensor {
					return []graph.Tensor{g.DOut, g.Builder().Fail(fmt.Errorf("no luck"))}
				}), p, p)
			})
			return b.Apply(total(1), y)
		}, []string{"layer: no luck"}},
		{"of a function of the loss", func(b *graph.Builder, p graph.Tensor) graph.Tensor {
			l := b.Apply(total(1), p)
			return b.Add(b.Add(l, l), l)
		}, []string{"total: only a loss"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			err := b.Gradients(c.loss(b, b.Param("p", nil, 1, 2, 3)))
			wantError(t, err, c.want...)
			if _, again := b.Compile(); again != err {
				t.Errorf("Compile gives %v", again)
			}
		})
	}
	t.Run("no parameters", func(t *testing.T) {
		b := newBuilder()
		wantError(t, b.Gradients(b.Apply(total(1), b.Input("x", graph.Float32, 1, 2, 3))), "the graph has no parameters")
	})
	t.Run("twice", func(t *testing.T) {
		b := newBuilder()
		loss := b.Apply(total(1), b.Param("p", nil, 1, 2, 3))
		if err := b.Gradients(loss); err != nil {
			t.Fatal(err)
		}
		wantError(t, b.Gradients(loss), "there is one already")
	})
	t.Run("a loss whose op wants its gradient as a tensor", func(t *testing.T) {
		b := newBuilder()
		wants := &graph.Spec{Name: "wants", Signature: "x[B T N] -> s[]"}
		wants.Gradient = func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(&graph.Spec{Name: "wants_dx", Signature: "x[B T N], ds[] -> dx[B T N]"}, g.In[0], g.DOut)}
		}
		if err := b.Gradients(b.Apply(wants, b.Param("p", nil, 1, 2, 3))); err != nil {
			t.Fatal(err)
		}
		_, err := b.Compile()
		wantError(t, err, "wants_dx: ds is the gradient of the loss itself")
	})
	t.Run("two parameters with one gradient", func(t *testing.T) {
		b := newBuilder()
		y := b.Add(b.Param("p", nil, 1, 2, 3), b.Param("q", nil, 1, 2, 3))
		if err := b.Gradients(b.Apply(total(1), y)); err != nil {
			t.Fatal(err)
		}
		_, err := b.Compile()
		wantError(t, err, "the gradient of q is shared with another tensor's")
	})
}

// TestGradientOfSum: a loss may be a sum of losses.
func TestGradientOfSum(t *testing.T) {
	b := newBuilder()
	p := b.Param("p", nil, 1, 2, 3)
	loss := b.Add(b.Apply(total(1), p), b.Apply(total(2), b.Apply(scale(2), p), b.Apply(scale(3), p)))
	b.Result("loss", loss)
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	m := load(t, compile(t, b))
	m.param("p", []float64{1, 1, 1, 1, 1, 1})
	m.run()
	want, sum := make([]float64, 6), 0.0
	for e := range want {
		want[e] = weight(0, e) + 2*weight(0, e) + 3*weight(1, e)
		sum += want[e]
	}
	m.gradient("p", want)
	m.result("loss", []float64{sum})
}

// TestBackwardPaths: a backward call belongs to its layer, a sum to the layer that computed the
// tensor.
func TestBackwardPaths(t *testing.T) {
	b := newBuilder()
	var x, y graph.Tensor
	b.Scope("first", func() { x = b.Apply(scale(2), b.Param("p", nil, 1, 2, 3)) })
	b.Scope("second", func() { y = b.Apply(mul(), x, x) })
	b.Scope("loss", func() { y = b.Apply(total(1), y) })
	if err := b.Gradients(y); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range compile(t, b).Steps {
		got = append(got, fmt.Sprintf("%s %s %v", s.Path, s.Spec.Name, s.Backward))
	}
	want := []string{
		"first scale false", "second mul false", "loss weights true", "second mul true", "second mul true",
		"first add true", "first scale true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// TestUpdatedAfterRead: a backward pass must see the same values as its forward pass.
func TestUpdatedAfterRead(t *testing.T) {
	b := newBuilder()
	p := b.Param("p", nil, 1, 2, 3)
	s := b.State("s", 1, 2, 3)
	y := b.Apply(mul(), p, s)
	b.Result("sum", b.Apply(count(), s, b.Input("x", graph.Float32, 1, 2, 3)))
	if err := b.Gradients(b.Apply(total(1), y)); err != nil {
		t.Fatal(err)
	}
	_, err := b.Compile()
	wantError(t, err, "mul: reads a tensor that count has updated by then")
}
