package simd

import (
	"math/rand/v2"
	"testing"
)

// BenchmarkScan runs a range of channels of a Mamba layer with d_model 1536. The operands are
// columns of wider matrices, as in the model.
func BenchmarkScan(b *testing.B) {
	const T, D, N, channels = 1024, 3072, 16, 256
	r := rand.New(rand.NewPCG(51, 52))
	matrix := func() Rows { return Rows{randomSlice(r, T*D, 1), D} }
	xz := randomSlice(r, T*2*D, 1)
	bc := randomSlice(r, T*(96+2*N), 1)
	a := &ScanArgs{
		T: T, Channels: D, N: N,
		U: matrix(), Dt: matrix(), Z: Rows{xz[D:], 2 * D}, B: Rows{bc[96:], 96 + 2*N}, C: Rows{bc[96+N:], 96 + 2*N},
		A: make([]float32, N*D), D: randomSlice(r, D, 1), DtBias: randomSlice(r, D, 1),
		Y: matrix(), Saved: make([]float32, ScanSavedSize(T, D, N)),
	}
	for i := range a.A {
		a.A[i] = -float32(1 + i/D)
	}
	g := &ScanGrads{
		DY: matrix(), DU: matrix(), DDt: matrix(), DZ: Rows{make([]float32, T*2*D), 2 * D},
		DB: Rows{make([]float32, T*N), N}, DC: Rows{make([]float32, T*N), N},
		DA: make([]float32, N*D), DD: make([]float32, D), DDtBias: make([]float32, D),
	}
	scratch := make([]float32, ScanBackwardScratch(channels, N))
	benchLevels(b, func(b *testing.B) {
		run := func(name string, f func(c0, c1 int)) {
			b.Run(name, func(b *testing.B) {
				c0 := 0
				for b.Loop() {
					f(c0, c0+channels)
					c0 = (c0 + channels) % D
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(T*channels/16), "ns/16channels")
			})
		}
		run("forward", func(c0, c1 int) { ScanForward(a, c0, c1, scratch) })
		run("backward", func(c0, c1 int) { ScanBackward(a, g, c0, c1, scratch) })
	})
}
