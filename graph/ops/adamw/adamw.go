// Package adamw is the AdamW update (Loshchilov & Hutter, arXiv 1711.05101) of all parameters at
// once, as in torch.optim.AdamW and torch.nn.utils.clip_grad_norm_.
package adamw

import (
	"math"
	"math/rand/v2"

	"github.com/sambatrain/sambatrain/graph"
)

// Settings stay the same from step to step.
type Settings struct {
	Beta1, Beta2 float64
	Eps          float64
	// WeightDecay is decoupled: each step subtracts lr * WeightDecay times the parameter.
	WeightDecay float64
	// MaxNorm is the norm to which gradients are clipped; 0 or less means no clipping.
	MaxNorm float64
}

// The elements of hyper, which change from step to step.
const (
	LR              = iota
	BiasCorrection1 // 1 - Beta1^t, with t counted from 1
	BiasCorrection2 // 1 - Beta2^t
	Scale           // the factor of g: 1 / number of micro-batches
	HyperSize
)

// Apply updates the parameters p [N] and the moments m and v [N] in place, from the gradient g [N],
// its norm (a scalar) and hyper [HyperSize].
func Apply(b *graph.Builder, p, g, m, v, norm, hyper graph.Tensor, s Settings) {
	b.Apply(Spec(s), p, g, m, v, norm, hyper)
}

// ApplyMixed is Apply that also writes the 2M new parameters to shadow [M] in bfloat16, the copy
// that mixed precision's matrix products read.
func ApplyMixed(b *graph.Builder, shadow, p, g, m, v, norm, hyper graph.Tensor, s Settings) {
	b.Apply(MixedSpec(s), shadow, p, g, m, v, norm, hyper)
}

// specInputs is the number of Spec's operands.
const specInputs = 6

// Spec is, element by element,
//
//	clip = min(1, MaxNorm / (Scale norm + 1e-6))   1 without clipping
//	g'   = g Scale clip
//	p   -= LR WeightDecay p
//	m    = Beta1 m + (1-Beta1) g'
//	v    = Beta2 v + (1-Beta2) g'^2
//	p   -= LR (m / BiasCorrection1) / (sqrt(v / BiasCorrection2) + Eps)
//
// If norm is infinite or NaN, nothing changes: such a gradient would spoil every parameter. Whoever
// reads norm has to report it.
func Spec(s Settings) *graph.Spec {
	return &graph.Spec{
		Name:      "adamw",
		Signature: "p:f32![N], g:f32[N], m:f32![N], v:f32![N], norm:f32[], hyper:f32[4] ->",
		Reference: func(_ graph.Dims, in, _ []graph.Array) {
			p, g, m, v, norm, hyper := in[0].Data, in[1].Data, in[2].Data, in[3].Data, in[4].Data[0], in[5].Data
			if !finite(norm) {
				return
			}
			scale := s.gradScale(norm, hyper[Scale])
			for i := range p {
				gi := g[i] * scale
				p[i] -= hyper[LR] * s.WeightDecay * p[i]
				m[i] = s.Beta1*m[i] + (1-s.Beta1)*gi
				v[i] = s.Beta2*v[i] + (1-s.Beta2)*gi*gi
				p[i] -= hyper[LR] * (m[i] / hyper[BiasCorrection1]) / (math.Sqrt(v[i]/hyper[BiasCorrection2]) + s.Eps)
			}
		},
		CPU:  func(c *graph.CPUCall) func() { return update(c, s) },
		CUDA: &graph.CUDA{Source: source, Launches: updateCUDA(s)},
		Cost: func(d graph.Dims) graph.Cost {
			return graph.Cost{FLOPs: 14 * float64(d["N"]), Bytes: 28 * float64(d["N"])}
		},
	}
}

// MixedSpec is Spec followed by shadow[i] = the bits of p[2i] and, in the upper half, of p[2i+1],
// each rounded to bfloat16, to nearest even. Regions are measured in units of 4 bytes, so an
// element of shadow holds two weights. If norm is not finite, shadow does not change either.
func MixedSpec(s Settings) *graph.Spec {
	spec := Spec(s)
	reference := spec.Reference
	spec.Name = "adamw_mixed"
	spec.Signature = "shadow:f32![M], p:f32![2*M], g:f32[2*M], m:f32![2*M], v:f32![2*M], norm:f32[], hyper:f32[4] ->"
	spec.Reference = func(d graph.Dims, in, out []graph.Array) {
		reference(d, in[1:], out)
		if !finite(in[5].Data[0]) {
			return
		}
		shadow, p := in[0].Data, in[1].Data
		for i := range shadow {
			shadow[i] = float64(pair(float32(p[2*i]), float32(p[2*i+1])))
		}
	}
	spec.CPU = func(c *graph.CPUCall) func() { return updateMixed(c, s) }
	spec.Cost = func(d graph.Dims) graph.Cost {
		return graph.Cost{FLOPs: 28 * float64(d["M"]), Bytes: 60 * float64(d["M"])}
	}
	return spec
}

// pair packs two numbers as bfloat16 into the bits of one float32, the first in the lower half.
func pair(low, high float32) float32 {
	return math.Float32frombits(bfloat16(low) | bfloat16(high)<<16)
}

func bfloat16(x float32) uint32 {
	if x != x {
		return 0x7fff
	}
	b := math.Float32bits(x)
	return (b + 0x7fff + b>>16&1) >> 16
}

// gradScale is the total factor of the gradient.
func (s Settings) gradScale(norm, scale float64) float64 {
	if s.MaxNorm <= 0 {
		return scale
	}
	return scale * min(1, s.MaxNorm/(scale*norm+1e-6))
}

func finite(x float64) bool { return !math.IsInf(x, 0) && !math.IsNaN(x) }

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	samba := Settings{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, MaxNorm: 1}
	unclipped := samba
	unclipped.MaxNorm = 0
	with := func(norm float64, hyper ...float64) map[string]graph.Fill {
		return map[string]graph.Fill{"v": graph.Uniform(0, 1), "norm": values(norm), "hyper": values(hyper...)}
	}
	first, later := []float64{1e-2, 0.1, 0.05, 1}, []float64{4e-4, 0.9, 0.7, 0.25}
	return []graph.Case{
		{Name: "one element", Spec: Spec(samba), Dims: graph.Dims{"N": 1}, Fill: with(3, first...)},
		{Name: "clipped", Spec: Spec(samba), Dims: graph.Dims{"N": 37}, Fill: with(7, later...)},
		{Name: "below the limit", Spec: Spec(samba), Dims: graph.Dims{"N": 37}, Fill: with(0.5, first...)},
		{Name: "no clipping", Spec: Spec(unclipped), Dims: graph.Dims{"N": 37}, Fill: with(7, later...)},
		{Name: "no decay", Spec: Spec(Settings{Beta1: 0.8, Beta2: 0.999, Eps: 1e-3}), Dims: graph.Dims{"N": 37}, Fill: with(7, later...)},
		{Name: "lr 0", Spec: Spec(samba), Dims: graph.Dims{"N": 5}, Fill: with(7, 0, 0.1, 0.05, 1)},
		{Name: "many blocks", Spec: Spec(samba), Dims: graph.Dims{"N": 2*block + 16}, Fill: with(7, later...)},
		{Name: "16m", Spec: Spec(samba), Dims: graph.Dims{"N": 16 << 20}, Fill: with(7, later...), Bench: true},
		// Few elements: where float32 and float64 are on different sides of a rounding boundary,
		// the bfloat16 values are not close to each other.
		{Name: "two elements", Spec: MixedSpec(samba), Dims: graph.Dims{"M": 1}, Fill: with(3, first...)},
		{Name: "odd", Spec: MixedSpec(samba), Dims: graph.Dims{"M": 37}, Fill: with(7, later...)},
		{Name: "vectors", Spec: MixedSpec(samba), Dims: graph.Dims{"M": 64}, Fill: with(7, later...)},
		{Name: "16m", Spec: MixedSpec(samba), Dims: graph.Dims{"M": 8 << 20}, Fill: with(7, later...), Bench: true},
	}
}

func values(x ...float64) graph.Fill {
	return func(_ *rand.Rand, a graph.Array) { copy(a.Data, x) }
}
