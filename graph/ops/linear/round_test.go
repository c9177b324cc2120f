package linear_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
)

// TestRoundFactors: on a device that rounds factors, the product is that of the
// rounded ones, and not that of the factors themselves.
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
	b.Result("y", linear.Apply(b, b.Input("x", graph.Float32, 1, n, k), b.Input("w", graph.Float32, m, k)))
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	program, err := dev.Load(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	y := make([]float32, n*m)
	for name, list := range map[string][]float32{"x": x, "w": w} {
		if err := program.WriteFloats(name, list); err != nil {
			t.Fatal(err)
		}
	}
	if err := program.Run(); err != nil {
		t.Fatal(err)
	}
	if err := program.Read("y", y); err != nil {
		t.Fatal(err)
	}
	round := func(x float32) float64 {
		bits := math.Float32bits(x)
		return float64(math.Float32frombits((bits + 0x7fff + bits>>16&1) &^ 0xffff))
	}
	unlike := 0
	for i := range n {
		for j := range m {
			rounded, exact := 0.0, 0.0
			for l := range k {
				rounded += round(x[i*k+l]) * round(w[j*k+l])
				exact += float64(x[i*k+l]) * float64(w[j*k+l])
			}
			got := float64(y[i*m+j])
			if math.Abs(got-rounded) > 1e-4 {
				t.Fatalf("y[%d %d] is %v, want %v", i, j, got, rounded)
			}
			if math.Abs(got-exact) > 1e-3 {
				unlike++
			}
		}
	}
	if unlike < n*m/2 {
		t.Errorf("only %d of %d elements show the rounding", unlike, n*m)
	}
}
