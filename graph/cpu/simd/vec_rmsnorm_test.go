package simd

import (
	"math"
	"math/rand/v2"
	"testing"
)

func rmsNorm64(x, w []float32, eps float64) (y []float64, rstd float64) {
	for _, v := range x {
		rstd += float64(v) * float64(v)
	}
	rstd = 1 / math.Sqrt(rstd/float64(len(x))+eps)
	for i, v := range x {
		y = append(y, float64(v)*rstd*float64(w[i]))
	}
	return y, rstd
}

func TestRMSNormRow(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	const eps = 1e-5
	eachLevel(t, func(t *testing.T) {
		for _, n := range testLengths {
			x, w, dy := randomSlice(r, n, 2), randomSlice(r, n, 1), randomSlice(r, n, 1)
			dst := newGuarded(n)
			rstd := RMSNormRow(dst.x, guardedCopy(x).x, guardedCopy(w).x, eps)
			dst.check(t, "RMSNormRow")
			if n == 0 {
				continue
			}
			want, wantRstd := rmsNorm64(x, w, eps)
			checkNear(t, "rstd", []float32{rstd}, []float64{wantRstd}, 5e-7, 0)
			checkNear(t, "RMSNormRow", dst.x, want, 1e-6, 0)

			before := randomSlice(r, n, 1)
			dx, dw := newGuarded(n), guardedCopy(before)
			RMSNormRowGrad(dx.x, dw.x, x, w, dy, rstd)
			dx.check(t, "dx")
			dw.check(t, "dw")
			var dot float64
			for i := range x {
				dot += float64(w[i]) * float64(dy[i]) * float64(x[i]) * wantRstd
			}
			wantDX, wantDW := make([]float64, n), make([]float64, n)
			for i := range x {
				hat := float64(x[i]) * wantRstd
				wantDX[i] = wantRstd * (float64(w[i])*float64(dy[i]) - hat*dot/float64(n))
				wantDW[i] = float64(before[i]) + float64(dy[i])*hat
			}
			checkNear(t, "dx", dx.x, wantDX, 1e-6, 1e-6)
			checkNear(t, "dw", dw.x, wantDW, 1e-6, 1e-6)
		}
	})
}

func BenchmarkRMSNorm(b *testing.B) {
	const n = 1536
	r := rand.New(rand.NewPCG(23, 24))
	x, w, dy := randomSlice(r, n, 2), randomSlice(r, n, 1), randomSlice(r, n, 1)
	y, dw := make([]float32, n), make([]float32, n)
	benchLevels(b, func(b *testing.B) {
		b.Run("forward", func(b *testing.B) {
			for b.Loop() {
				RMSNormRow(y, x, w, 1e-5)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
		})
		b.Run("backward", func(b *testing.B) {
			for b.Loop() {
				RMSNormRowGrad(y, dw, x, w, dy, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
		})
	})
}
