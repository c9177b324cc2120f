package graph_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// gates is a model of blocks x + gate(mirror(x), a x) w.
func gates(mixed bool, blocks int) *program {
	g := &program{r: rand.New(rand.NewPCG(1, 1)), b: newBuilder()}
	if mixed {
		g.b.SetMixed(round.Spec())
	}
	x := g.leaf("param", 64)
	for range blocks {
		g.b.Block(func() {
			w := g.leaf("param", 64)
			z := g.mul(gate(), g.mirror(x), g.scale(x))
			x = g.sum(x, g.mul(mul(), z, w))
		})
	}
	g.close()
	return g
}

// TestBackwardMakesForwardAgain: a backward op that can recompute the output of its forward op does
// so. This takes less memory than a plan without such ops and gives the same results; inputs are
// recomputed where the outputs will be.
func TestBackwardMakesForwardAgain(t *testing.T) {
	for _, mixed := range []bool{false, true} {
		t.Run(fmt.Sprintf("mixed %v", mixed), func(t *testing.T) {
			g := gates(mixed, 6)
			free := compile(t, g.b)
			if names := steps(free); slices.Contains(names, "gate_backward_again") {
				t.Errorf("without a limit: %v", names)
			}
			g.b.SetArenaLimit(int64(free.Sizes[graph.Arena]) * 4 * 3 / 4)
			p := compile(t, g.b)
			untorn(t, p)
			fused, over := 0, 0
			for _, s := range p.Steps {
				if s.Spec.Name != "gate_backward_again" {
					continue
				}
				fused++
				inPlace := true
				for k, in := range s.In {
					inPlace = inPlace && in.Offset == s.Out[k].Offset && in.Col == s.Out[k].Col
				}
				if inPlace {
					over++
				}
			}
			if fused < 2 || over < 2 {
				t.Errorf("%d backward ops make again what their forward op gave, %d of them in place:\n%v", fused, over, p)
			}
			if mixed {
				return
			}
			m := g.load(t, p)
			m.run()
			m.run()
			g.compare(t, m, 1)
		})
	}
}

// TestRecomputedColumns: a backward op recomputes the output of the forward op with the same inputs,
// not of one that reads other columns of the same tensor.
func TestRecomputedColumns(t *testing.T) {
	const blocks = 4
	build := func() *graph.Builder {
		b := newBuilder()
		x, w, v := b.Input("x", graph.Float32, 1, 2, 8), b.Param("w", nil, 1, 2, 8), b.Param("v", nil, 1, 2, 4)
		var list []graph.Tensor
		for range blocks {
			var y, other graph.Tensor
			b.Block(func() {
				h := b.Apply(mul(), x, w)
				left, right := b.Columns(h, 0, 4), b.Columns(h, 4, 8)
				y, other = b.Apply(gate(), left, right), b.Apply(gate(), right, left)
				// The gradient of other is known before the backward pass reads y.
				y = b.Apply(mul(), y, v)
			})
			list = append(list, b.Apply(mirror(), y), b.Apply(mirror(), other)) // outside of blocks: kept
		}
		loss := b.Apply(total(len(list)), list...)
		b.Result("loss", loss)
		if err := b.Gradients(loss); err != nil {
			t.Fatal(err)
		}
		return b
	}
	free := compile(t, build())
	x, w := []float64{1, -1, 2, 0.5, 3, 1, -2, 1, 0.5, 2, -1, 1, 1, 3, 2, -1}, []float64{2, 1, 1, -1, 1, 0.5, 1, 2, 1, 1, 2, 1, -1, 1, 0.5, 1}
	run := func(p *graph.Plan) *machines {
		m := load(t, p)
		m.param("w", w)
		m.param("v", w[:8])
		m.input("x", x)
		m.run()
		return m
	}
	exact := run(free).ref
	recomputed := 0
	for bytes := 4 * int64(free.Sizes[graph.Arena]); ; bytes -= 64 {
		b := build()
		b.SetArenaLimit(bytes)
		p, err := b.Compile()
		var limit *graph.LimitError
		if errors.As(err, &limit) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		recomputed += p.Repeated()["gate"]
		m := run(p)
		for _, name := range []string{"v", "w"} {
			m.gradient(name, exact.Read(paramSlot(free, name, graph.Grads)).Data)
		}
	}
	if recomputed == 0 {
		t.Error("no gate is recomputed")
	}
}
