package simd

import "math"

// AdamWStep holds the scalars of one AdamW update (Loshchilov and Hutter, arXiv 1711.05101), in the
// parametrisation of torch.optim.AdamW.
type AdamWStep struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64
	// GradScale multiplies the gradient first: the global-norm clip, and 1/accumulation steps.
	GradScale float64
	// BiasCorrection1 and BiasCorrection2 are 1 - Beta1^t and 1 - Beta2^t, at update t counted from 1.
	BiasCorrection1, BiasCorrection2 float64
}

// AdamW updates parameters p and the moments m and v from gradient g, element by element:
//
//	p -= LR * WeightDecay * p
//	g' = GradScale * g
//	m  = Beta1 * m + (1-Beta1) * g'
//	v  = Beta2 * v + (1-Beta2) * g'^2
//	p -= LR * (m / BiasCorrection1) / (sqrt(v / BiasCorrection2) + Eps)
func AdamW(p, g, m, v []float32, s *AdamWStep) {
	checkLen("AdamW", len(p), len(g), len(m), len(v))
	vec().adamW(p, g, m, v,
		float32(1-s.LR*s.WeightDecay), float32(s.GradScale),
		float32(s.Beta1), float32(1-s.Beta1), float32(s.Beta2), float32(1-s.Beta2),
		float32(1/math.Sqrt(s.BiasCorrection2)), float32(s.Eps), float32(s.LR/s.BiasCorrection1))
}
