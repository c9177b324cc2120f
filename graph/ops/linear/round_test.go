package linear_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
)

// TestRoundFactors: on a device that rounds the inputs of products, the product is that of the
// rounded inputs, and not that of the original ones, also with a sum; in a float32 block it is that
// of the original ones.
func TestRoundFactors(t *testing.T) {
	const n, m, k = 70, 19, 37
	rng := rand.New(rand.NewPCG(1, 2))
	x, w := make([]float32, n*k), make([]float32, m*k)
	for _, list := range [][]float32{x, w} {
		for i := range list {
			list[i] = float32(rng.NormFloat64())
		}
	}
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	dev.RoundFactors()
	b := graph.NewBuilder(add.Spec)
	b.SetFloat32Blocks(1)
	in, weight, zero := b.Input("x", graph.Float32, 1, n, k), b.Input("w", graph.Float32, m, k), b.Input("zero", graph.Float32, 1, n, m)
	product := func() graph.Tensor { return linear.Apply(b, in, weight) }
	b.Block(func() { b.Result("in a block", product()) })
	b.Block(func() { b.Result("alone", product()) })
	b.Result("added", b.Add(zero, product()))
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	program, err := dev.Load(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, list := range map[string][]float32{"x": x, "w": w} {
		if err := program.WriteFloats(name, list); err != nil {
			t.Fatal(err)
		}
	}
	if err := program.Run(); err != nil {
		t.Fatal(err)
	}
	round := func(x float32) float64 {
		bits := math.Float32bits(x)
		return float64(math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff))
	}
	if i := slices.IndexFunc(plan.Steps, func(s graph.Step) bool { return s.Spec.Name == "linear_add" }); i < 0 {
		t.Errorf("no product adds:\n%v", plan)
	}
	for name, rounds := range map[string]bool{"in a block": false, "alone": true, "added": true} {
		y := make([]float32, n*m)
		if err := program.Read(name, y); err != nil {
			t.Fatal(err)
		}
		unlike := 0
		for i := range n {
			for j := range m {
				rounded, exact := 0.0, 0.0
				for l := range k {
					rounded += round(x[i*k+l]) * round(w[j*k+l])
					exact += float64(x[i*k+l]) * float64(w[j*k+l])
				}
				want, other := exact, rounded
				if rounds {
					want, other = rounded, exact
				}
				got := float64(y[i*m+j])
				if !(math.Abs(got-want) <= 1e-4) {
					t.Fatalf("%s: y[%d %d] is %v, want %v", name, i, j, got, want)
				}
				if math.Abs(got-other) > 1e-3 {
					unlike++
				}
			}
		}
		if unlike < n*m/2 {
			t.Errorf("%s: only %d of %d elements tell rounded factors from others", name, unlike, n*m)
		}
	}
}
