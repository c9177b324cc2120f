package graph_test

import (
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
