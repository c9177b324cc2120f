package rms_norm

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// TestFromY: the gradients computed from y equal those computed from x, also where weights are
// small or 0.
func TestFromY(t *testing.T) {
	const eps = 1e-5
	d := graph.Dims{"B": 2, "T": 3, "D": 6}
	r := rand.New(rand.NewPCG(1, 2))
	array := func(s ...int) graph.Array {
		a := graph.NewArray(s)
		for i := range a.Data {
			a.Data[i] = r.NormFloat64()
		}
		return a
	}
	x, w, dy, z := array(2, 3, 6), array(6), array(2, 3, 6), array(2, 3, 6)
	w.Data[1], w.Data[2], w.Data[3] = 0, 1e-9, math.Copysign(0, -1)
	y, rstd := array(2, 3, 6), array(2, 3)
	Spec(eps).Reference(d, []graph.Array{x, w}, []graph.Array{y, rstd})
	var results [2][]graph.Array
	for i, from := range []graph.Array{x, y} {
		results[i] = []graph.Array{graph.NewArray(x.Shape), graph.NewArray(w.Shape)}
		backward{fromY: i == 1, add: true}.reference(d, []graph.Array{from, w, rstd, dy, z}, results[i])
	}
	for k := range results[0] {
		for i, want := range results[0][k].Data {
			if got := results[1][k].Data[i]; !(math.Abs(got-want) <= 1e-12) {
				t.Errorf("output %d, element %d: %v from y, %v from x", k, i, got, want)
			}
		}
	}
}
