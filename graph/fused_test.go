package graph_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// product is y = x w^T, which other ops can compute themselves. Nobody runs it.
func product() *graph.Spec {
	return &graph.Spec{Name: "product", Signature: "x:mm[B T D], w:mm[F D] -> y[B T F]", Stacks: true, Pulls: true}
}

// factored takes two products, and can compute them itself.
func factored() *graph.Spec {
	return &graph.Spec{Name: "factored", Signature: "a[B T F], b[B T F] -> y[B T F]", Made: func(kept bool) *graph.Spec {
		if kept {
			return &graph.Spec{Name: "factored_kept", Signature: "x:mm[B T D], v:mm[F D], w:mm[F D] -> y[B T F], a[B T F], b[B T F]"}
		}
		return &graph.Spec{Name: "factored_made", Signature: "x:mm[B T D], v:mm[F D], w:mm[F D] -> y[B T F]"}
	}}
}

// pulling takes a product last, and can compute it itself.
func pulling() *graph.Spec {
	return &graph.Spec{Name: "pulling", Signature: "a[B T F], dy[B T F] -> da[B T F]", Pulled: func() *graph.Spec {
		return &graph.Spec{Name: "pulling_made", Signature: "x:mm[B T D], w:mm[F D], a[B T F] -> da[B T F]"}
	}}
}

// back is x = y w, and backAdded is that plus z.
func back() *graph.Spec {
	return &graph.Spec{Name: "back", Signature: "y:mm[B T F], w:mm[F D] -> x[B T D]"}
}

func backAdded() *graph.Spec {
	return &graph.Spec{Name: "back_added", Signature: "y:mm[B T F], w:mm[F D], z[B T D] -> x[B T D]", Merged: back}
}

// TestFused: in mixed precision an op computes the products that it reads itself. What else is read
// of them, by other ops or as results, is still computed.
func TestFused(t *testing.T) {
	reader := typed("reader", "", tensorDims, "")
	for _, c := range []struct {
		name  string
		build func(b *graph.Builder, x, v, w graph.Tensor)
		want  []string
	}{
		{"factors", func(b *graph.Builder, x, v, w graph.Tensor) {
			b.Result("y", b.Apply(factored(), b.Apply(product(), x, v), b.Apply(product(), x, w)))
		}, []string{"factored_made"}},
		{"factors, the first read by another op", func(b *graph.Builder, x, v, w graph.Tensor) {
			first := b.Apply(product(), x, v)
			b.Result("y", b.Apply(factored(), first, b.Apply(product(), x, w)))
			b.Result("z", b.Apply(reader, first))
		}, []string{"factored_kept", "reader"}},
		{"factors, the second read by another op", func(b *graph.Builder, x, v, w graph.Tensor) {
			first, second := b.Apply(product(), x, v), b.Apply(product(), x, w)
			b.Result("y", b.Apply(factored(), first, second))
			b.Result("z", b.Apply(reader, second))
		}, []string{"factored_kept", "reader"}},
		{"factors, one of them a result", func(b *graph.Builder, x, v, w graph.Tensor) {
			first, second := b.Apply(product(), x, v), b.Apply(product(), x, w)
			b.Result("y", b.Apply(factored(), first, second))
			b.Result("z", second)
		}, []string{"factored_kept"}},
		{"factors of different tensors", func(b *graph.Builder, x, v, w graph.Tensor) {
			other := b.Apply(reader, x)
			b.Result("y", b.Apply(factored(), b.Apply(product(), x, v), b.Apply(product(), other, w)))
		}, []string{"reader", "product", "product", "factored"}},
		{"a pulled product", func(b *graph.Builder, x, v, w graph.Tensor) {
			dy := b.Apply(product(), x, w)
			b.Result("y", b.Apply(pulling(), b.Apply(reader, x), dy))
		}, []string{"reader", "pulling_made"}},
		{"a pulled product, read by another op", func(b *graph.Builder, x, v, w graph.Tensor) {
			dy := b.Apply(product(), x, w)
			b.Result("y", b.Apply(pulling(), b.Apply(reader, x), dy))
			b.Result("z", b.Apply(reader, dy))
		}, []string{"product", "reader", "pulling", "reader"}},
		{"a pulled product that is a result", func(b *graph.Builder, x, v, w graph.Tensor) {
			dy := b.Apply(product(), x, w)
			b.Result("y", b.Apply(pulling(), b.Apply(reader, x), dy))
			b.Result("z", dy)
		}, []string{"product", "reader", "pulling"}},
		{"a sum of products", func(b *graph.Builder, x, v, w graph.Tensor) {
			z := b.Apply(back(), b.Apply(reader, x), v)
			b.Result("y", b.Apply(backAdded(), b.Apply(reader, x), w, z))
		}, []string{"reader", "reader", "back"}},
		{"a sum of products, of which one is read by another op", func(b *graph.Builder, x, v, w graph.Tensor) {
			z := b.Apply(back(), b.Apply(reader, x), v)
			b.Result("y", b.Apply(backAdded(), b.Apply(reader, x), w, z))
			b.Result("z", b.Apply(reader, z))
		}, []string{"reader", "back", "reader", "back_added", "reader"}},
		{"a sum of products, of which one is a result", func(b *graph.Builder, x, v, w graph.Tensor) {
			z := b.Apply(back(), b.Apply(reader, x), v)
			b.Result("y", b.Apply(backAdded(), b.Apply(reader, x), w, z))
			b.Result("z", z)
		}, []string{"reader", "back", "reader", "back_added"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			b.SetMixed(round.Spec())
			v, w := b.Param("v", nil, 8, 8), b.Param("w", nil, 8, 8)
			c.build(b, b.Apply(typed("maker", "", tensorDims, ""), b.Input("x", graph.Float32, 1, 2, 8)), v, w)
			p := compile(t, b)
			untorn(t, p)
			if diff := cmp.Diff(append([]string{"maker"}, c.want...), steps(p)); diff != "" {
				t.Errorf("calls (-want +got):\n%s\n%v", diff, p)
			}
			for name, slot := range p.Results {
				if !writes(p, slot) {
					t.Errorf("nobody writes result %s", name)
				}
			}
		})
	}
}

// carriedProduct can include the gate of its two halves, or the convolution of its first columns.
func carriedProduct() *graph.Spec {
	return &graph.Spec{Name: "product", Signature: "x:mm[B T D], w:mm[F D] -> y[B T F]", Stacks: true,
		Gated: func() *graph.Spec {
			return &graph.Spec{Name: "product_gated", Signature: "x:mm[B T D], w:mm[2*F D] -> y[B T F]"}
		},
		Convolved: func(*graph.Spec) *graph.Spec {
			return &graph.Spec{Name: "product_convolved", Signature: "x:mm[B T D], w:mm[F D], taps:f32[C J] -> y[B T F]"}
		},
	}
}

// TestFusedCarried: with few rows, a product includes the gate or the convolution that reads it, and
// an op includes a product that it reads, unless something else reads what would then be missing.
func TestFusedCarried(t *testing.T) {
	reader := typed("reader", "", tensorDims, "")
	gate := &graph.Spec{Name: "gate", Signature: "g[B T F], u[B T F] -> y[B T F]", Gates: true}
	convolution := &graph.Spec{Name: "convolution", Signature: "x[B T C], taps:f32[C J] -> y[B T C]", Convolves: true}
	scan := &graph.Spec{Name: "scan", Signature: "u[B T C], dt[B T C] -> y[B T C]", Projected: func() *graph.Spec {
		return &graph.Spec{Name: "scan_projected", Signature: "u[B T C], x:mm[B T D], w:mm[C D] -> y[B T C]"}
	}}
	for _, c := range []struct {
		name  string
		build func(b *graph.Builder, x, wide, narrow, taps graph.Tensor)
		want  []string
	}{
		{"a gate", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			y := b.Apply(carriedProduct(), x, wide)
			b.Result("y", b.Apply(gate, b.Columns(y, 0, 8), b.Columns(y, 8, 16)))
		}, []string{"product_gated"}},
		{"a gate, of which half is read by another op", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			y := b.Apply(carriedProduct(), x, wide)
			b.Result("y", b.Apply(gate, b.Columns(y, 0, 8), b.Columns(y, 8, 16)))
			b.Result("z", b.Apply(reader, b.Columns(y, 8, 16)))
		}, []string{"product", "gate", "reader"}},
		{"a gate of swapped halves", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			y := b.Apply(carriedProduct(), x, wide)
			b.Result("y", b.Apply(gate, b.Columns(y, 8, 16), b.Columns(y, 0, 8)))
		}, []string{"product", "gate"}},
		{"a convolution of some columns", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			y := b.Apply(carriedProduct(), x, wide)
			b.Result("y", b.Apply(mul2(), b.Apply(reader, b.Apply(convolution, b.Columns(y, 0, 8), taps)), b.Columns(y, 8, 16)))
		}, []string{"product_convolved", "reader", "mul2"}},
		{"a convolution of columns that another op reads", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			y := b.Apply(carriedProduct(), x, wide)
			b.Result("y", b.Apply(reader, b.Apply(convolution, b.Columns(y, 0, 8), taps)))
			b.Result("z", b.Apply(reader, b.Columns(y, 4, 12)))
		}, []string{"product", "convolution", "reader", "reader"}},
		{"products with weights that lie one after the other", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			b.Result("y", b.Apply(mul2(), b.Apply(carriedProduct(), x, narrow), b.Apply(carriedProduct(), x, b.Param("after", nil, 8, 8))))
		}, []string{"product", "mul2"}},
		{"products with weights that lie apart", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			b.Param("between", nil, 8, 8)
			b.Result("y", b.Apply(mul2(), b.Apply(carriedProduct(), x, narrow), b.Apply(carriedProduct(), x, b.Param("after", nil, 8, 8))))
		}, []string{"product", "product", "mul2"}},
		{"a projection", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			b.Result("y", b.Apply(scan, b.Apply(reader, x), b.Apply(carriedProduct(), x, narrow)))
		}, []string{"reader", "scan_projected"}},
		{"a projection that another op reads", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			dt := b.Apply(carriedProduct(), x, narrow)
			b.Result("y", b.Apply(scan, b.Apply(reader, x), dt))
			b.Result("z", b.Apply(reader, dt))
		}, []string{"product", "reader", "scan", "reader"}},
		{"a projection that is a result", func(b *graph.Builder, x, wide, narrow, taps graph.Tensor) {
			dt := b.Apply(carriedProduct(), x, narrow)
			b.Result("y", b.Apply(scan, b.Apply(reader, x), dt))
			b.Result("z", dt)
		}, []string{"product", "reader", "scan"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			b.SetMixed(round.Spec())
			b.SetCarry(graph.Carry{Positions: 8})
			wide, taps, narrow := b.Param("wide", nil, 16, 8), b.Param("taps", nil, 8, 4), b.Param("narrow", nil, 8, 8)
			c.build(b, b.Apply(typed("maker", "", tensorDims, ""), b.Input("x", graph.Float32, 2, 1, 8)), wide, narrow, taps)
			p := compile(t, b)
			untorn(t, p)
			if diff := cmp.Diff(append([]string{"maker"}, c.want...), steps(p)); diff != "" {
				t.Errorf("calls (-want +got):\n%s\n%v", diff, p)
			}
		})
	}
}

// TestMergedGradient: a product whose result is also a parameter's gradient is computed, even where
// it is a term of a sum of products.
func TestMergedGradient(t *testing.T) {
	forward := product()
	forward.Gradient = func(g *graph.Gradient) []graph.Tensor {
		dw := &graph.Spec{Name: "dw", Signature: "dy:mm[B T F], x:mm[B T D] -> dw[F D]"}
		adds := back()
		adds.Added = backAdded
		return []graph.Tensor{g.Builder().Apply(adds, g.DOut, g.In[1]), g.Builder().Apply(dw, g.DOut, g.In[0])}
	}
	b := newBuilder()
	b.SetMixed(round.Spec())
	v, w := b.Param("v", nil, 8, 8), b.Param("w", nil, 8, 8)
	u, p := b.Param("u", nil, 1, 2, 8), b.Param("p", nil, 1, 2, 8)
	x := b.Apply(mul(), u, b.Input("x", graph.Float32, 1, 2, 8))
	loss := b.Apply(total(2), b.Apply(forward, x, v), b.Apply(forward, b.Add(x, p), w))
	b.Result("loss", loss)
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	plan := compile(t, b)
	untorn(t, plan)
	for _, q := range plan.Params {
		if !writes(plan, paramSlot(plan, q.Name, graph.Grads)) {
			t.Errorf("nobody computes the gradient of %s\n%v", q.Name, plan)
		}
	}
}

// writes reports whether one of a plan's steps writes a slot.
func writes(p *graph.Plan, slot graph.Slot) bool {
	for _, s := range p.Steps {
		for _, out := range s.Out {
			if out.Overlaps(slot) {
				return true
			}
		}
	}
	return false
}
