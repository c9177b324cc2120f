package simd

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestAdamW(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	eachLevel(t, func(t *testing.T) {
		for _, n := range testLengths {
			p, m, v := guardedCopy(randomSlice(r, n, 1)), newGuarded(n), newGuarded(n)
			clear(m.x)
			clear(v.x)
			want, wantM, wantV := make([]float64, n), make([]float64, n), make([]float64, n)
			for i := range want {
				want[i] = float64(p.x[i])
			}
			for step := 1; step <= 4; step++ {
				g := randomSlice(r, n, math.Pow(10, float64(1-2*step)))
				s := AdamWStep{
					LR: 2e-3 / float64(step), Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, GradScale: 0.7,
					BiasCorrection1: 1 - math.Pow(0.9, float64(step)), BiasCorrection2: 1 - math.Pow(0.95, float64(step)),
				}
				AdamW(p.x, g, m.x, v.x, &s)
				for i := range want {
					want[i] -= s.LR * s.WeightDecay * want[i]
					grad := s.GradScale * float64(g[i])
					wantM[i] = s.Beta1*wantM[i] + (1-s.Beta1)*grad
					wantV[i] = s.Beta2*wantV[i] + (1-s.Beta2)*grad*grad
					want[i] -= s.LR * (wantM[i] / s.BiasCorrection1) / (math.Sqrt(wantV[i]/s.BiasCorrection2) + s.Eps)
				}
			}
			for _, g := range []guarded{p, m, v} {
				g.check(t, "AdamW")
			}
			checkNear(t, "p", p.x, want, 5e-7, 1e-8)
			checkNear(t, "m", m.x, wantM, 5e-7, 1e-9)
			checkNear(t, "v", v.x, wantV, 5e-7, 0)
		}
	})
}

func BenchmarkAdamW(b *testing.B) {
	const n = 1 << 23 // 32 MiB a slice
	r := rand.New(rand.NewPCG(33, 34))
	p, g, m, v := randomSlice(r, n, 1), randomSlice(r, n, 1), make([]float32, n), make([]float32, n)
	s := AdamWStep{LR: 1e-3, Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1, GradScale: 1, BiasCorrection1: 0.1, BiasCorrection2: 0.05}
	benchLevels(b, func(b *testing.B) {
		b.SetBytes(7 * 4 * n) // reads p, g, m, v; writes p, m, v
		for b.Loop() {
			AdamW(p, g, m, v, &s)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
	})
}
