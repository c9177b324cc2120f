// Package rope is the rotary position embedding (Su et al., arXiv 2104.09864) in the half-split
// form of GPT-NeoX and Llama: channel i of a head is rotated with channel i + D/2.
package rope

import (
	"fmt"
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Apply rotates each head of x [B T H*D] by angles proportional to the token's position: headDim is
// D, and must be even; channel i of D/2 rotates by base^(-2i/D) per token. In the builder's
// stateful form positions start at Builder.Position, otherwise at 0.
func Apply(b *graph.Builder, x graph.Tensor, headDim int, base float64) graph.Tensor {
	if c := b.Carries(); c != nil && !c.Begins {
		return b.Apply(CarrySpec(headDim, base), x, b.Position(x.Shape()[0]))
	}
	return b.Apply(Spec(headDim, base), x)
}

// Spec is, at position t and for channels i of the two halves of a head,
//
//	y1 = x1 cos(t w_i) - x2 sin(t w_i)
//	y2 = x2 cos(t w_i) + x1 sin(t w_i),    w_i = base^(-2i/D)
func Spec(headDim int, base float64) *graph.Spec {
	r := rotation{base: base, sign: 1}
	s := r.spec("rope", headDim)
	s.Gradient = func(g *graph.Gradient) []graph.Tensor {
		return []graph.Tensor{g.Builder().Apply(BackwardSpec(headDim, base), g.DOut)}
	}
	return s
}

// BackwardSpec rotates backwards: the transpose of a rotation is its inverse.
func BackwardSpec(headDim int, base float64) *graph.Spec {
	return rotation{base: base, sign: -1}.spec("rope_backward", headDim)
}

// CarrySpec is Spec for tokens at positions pos, pos+1, ... of each row's text.
func CarrySpec(headDim int, base float64) *graph.Spec {
	s := rotation{base: base, sign: 1}.spec("rope_carry", headDim)
	s.Signature = "x[B T H*D], pos:i32[B] -> y[B T H*D]"
	return s
}

// rotation is what distinguishes the three ops.
type rotation struct {
	base float64
	sign float64 // of the angles
}

func (r rotation) spec(name string, headDim int) *graph.Spec {
	return &graph.Spec{
		Name:      name,
		Signature: "x[B T H*D] -> y[B T H*D]",
		Dims:      graph.Dims{"D": headDim},
		Derive: func(d graph.Dims) error {
			if d["D"]%2 != 0 {
				return fmt.Errorf("head_dim is %d; it must be even", d["D"])
			}
			if !(r.base > 0) {
				return fmt.Errorf("base is %v; it must be positive", r.base)
			}
			return nil
		},
		Reference: r.reference,
		CPU:       r.cpu,
		CUDA:      &graph.CUDA{Source: source, Launches: r.launches},
		InPlace:   []int{0},
		Cost: func(d graph.Dims) graph.Cost {
			n := float64(d["B"] * d["T"] * d["H"] * d["D"])
			return graph.Cost{FLOPs: 3 * n, Bytes: 8 * n}
		},
	}
}

func (r rotation) reference(d graph.Dims, in, out []graph.Array) {
	half := d["D"] / 2
	for row := range d["B"] * d["T"] {
		position := float64(row % d["T"])
		if len(in) > 1 {
			position += in[1].Data[row/d["T"]]
		}
		for h := range d["H"] {
			x, y := in[0].Row(row)[h*d["D"]:], out[0].Row(row)[h*d["D"]:]
			for i := range half {
				sin, cos := math.Sincos(r.sign * position * r.frequency(i, half))
				y[i] = x[i]*cos - x[half+i]*sin
				y[half+i] = x[half+i]*cos + x[i]*sin
			}
		}
	}
}

// frequency is w_i, in radians per token.
func (r rotation) frequency(i, half int) float64 {
	return math.Pow(r.base, -float64(i)/float64(half))
}

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	at := func(position int) map[string]graph.Fill {
		return map[string]graph.Fill{"pos": graph.Integers(position, position+1)}
	}
	return []graph.Case{
		{Name: "small", Spec: Spec(8, 10000), Dims: graph.Dims{"B": 2, "T": 5, "H": 2}},
		{Name: "odd", Spec: Spec(6, 500), Dims: graph.Dims{"B": 3, "T": 7, "H": 5}},
		{Name: "one pair", Spec: Spec(2, 10000), Dims: graph.Dims{"B": 1, "T": 1, "H": 1}},
		{Name: "many blocks", Spec: Spec(64, 10000), Dims: graph.Dims{"B": 2, "T": 2*tokensPerTask + 3, "H": 1}},
		{Name: "start", Spec: CarrySpec(8, 10000), Dims: graph.Dims{"B": 2, "T": 2*tokensPerTask + 1, "H": 2}, Fill: at(0)},
		{Name: "one token", Spec: CarrySpec(128, 10000), Dims: graph.Dims{"B": 1, "T": 1, "H": 2}, Fill: at(77)},
		{Name: "far", Spec: CarrySpec(64, 10000), Dims: graph.Dims{"B": 1, "T": 3, "H": 1}, Fill: at(1_000_000)},
		{Name: "texts of their own", Spec: CarrySpec(16, 10000), Dims: graph.Dims{"B": 5, "T": tokensPerTask + 2, "H": 2},
			Fill: map[string]graph.Fill{"pos": graph.Integers(0, 3)}},
		{Name: "421m", Spec: Spec(128, 10000), Dims: graph.Dims{"B": 1, "T": 4096, "H": 12}, Bench: true},
		{Name: "30m", Spec: Spec(128, 10000), Dims: graph.Dims{"B": 1, "T": 1024, "H": 4}, Bench: true},
		{Name: "421m decode", Spec: CarrySpec(128, 10000), Dims: graph.Dims{"B": 1, "T": 1, "H": 12}, Fill: at(5000), Bench: true},
	}
}
