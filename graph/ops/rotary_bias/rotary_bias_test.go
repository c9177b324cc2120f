package rotary_bias_test

import (
	"math"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/rope"
	"github.com/sambatrain/sambatrain/graph/ops/rotary_bias"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestRotaryBias(t *testing.T) { optest.Run(t, rotary_bias.Cases()) }

// TestDistanceAlone: the bias is the product of alpha at position i and beta at position j, rotated
// by rope, for all i and j.
func TestDistanceAlone(t *testing.T) {
	const positions, width = 9, 10
	c := graph.Case{Name: "distance", Spec: rotary_bias.Spec(positions), Dims: graph.Dims{"D": width}}
	r, err := c.Spec.ResolveDims(c.Dims)
	if err != nil {
		t.Fatal(err)
	}
	in, bias := optest.Draw(c, r), graph.NewArray(graph.Shape{positions})
	c.Spec.Reference(r.Dims, in, []graph.Array{bias})

	turned := func(v graph.Array) graph.Array {
		s := rope.Spec(width, 10000)
		x, y := graph.NewArray(graph.Shape{1, positions, width}), graph.NewArray(graph.Shape{1, positions, width})
		for i := range positions {
			copy(x.Row(i), v.Data)
		}
		s.Reference(graph.Dims{"B": 1, "T": positions, "H": 1, "D": width}, []graph.Array{x}, []graph.Array{y})
		return y
	}
	alpha, beta := turned(in[0]), turned(in[1])
	for i := range positions {
		for j := range i + 1 {
			want := 0.0
			for c, a := range alpha.Row(i) {
				want += a * beta.Row(j)[c]
			}
			if got := bias.Data[i-j]; !(math.Abs(got-want) <= 1e-12) {
				t.Errorf("tokens %d and %d: the bias is %v, want %v", i, j, got, want)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	_, err := rotary_bias.Spec(4).Resolve([]graph.Shape{{1, 3}, {1, 3}})
	if err == nil || !strings.Contains(err.Error(), "must be even") {
		t.Errorf("got %v", err)
	}
}
