package simd

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// convCase is a causal depthwise convolution with SiLU in float64, with gradients by the chain
// rule.
type convCase struct {
	T, D, K   int
	x, dy     []float64 // [T][D]
	w         []float64 // [D][K]
	bias      []float64
	tail      []float64 // [K-1][D] or nil
	y, dx     []float64
	dw, dbias []float64
}

func newConvCase(seed uint64, T, D, K int, tail bool) *convCase {
	r := rand.New(rand.NewPCG(seed, 41))
	draw := func(n int) []float64 {
		x := make([]float64, n)
		for i := range x {
			x[i] = float64(float32(r.NormFloat64()))
		}
		return x
	}
	s := &convCase{T: T, D: D, K: K, x: draw(T * D), dy: draw(T * D), w: draw(D * K), bias: draw(D)}
	if tail {
		s.tail = draw((K - 1) * D)
	}
	s.y, s.dx = make([]float64, T*D), make([]float64, T*D)
	s.dw, s.dbias = make([]float64, D*K), make([]float64, D)
	for t := range T {
		for c := range D {
			pre := s.bias[c]
			for k := range K {
				pre += s.w[c*K+k] * s.input(t-K+1+k, c)
			}
			s.y[t*D+c] = silu64(pre)
			g := s.dy[t*D+c] * siluSlope64(pre)
			s.dbias[c] += g
			for k := range K {
				s.dw[c*K+k] += g * s.input(t-K+1+k, c)
				if p := t - K + 1 + k; p >= 0 {
					s.dx[p*D+c] += g * s.w[c*K+k]
				}
			}
		}
	}
	return s
}

func (s *convCase) input(t, c int) float64 {
	switch {
	case t >= 0:
		return s.x[t*s.D+c]
	case s.tail != nil:
		return s.tail[(t+s.K-1)*s.D+c]
	}
	return 0
}

func TestConvSiLU(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for i, c := range []struct{ T, D, K int }{
			{0, 16, 4}, {1, 1, 4}, {2, 16, 4}, {3, 17, 4}, {9, 33, 4}, {20, 7, 2}, {12, 40, 3}, {11, 15, 8}, {5, 16, 7}, {6, 65, 1}, {10, convBlock + 37, 4},
		} {
			for _, tail := range []bool{false, true} {
				t.Run(fmt.Sprintf("T=%d,D=%d,K=%d,tail=%v", c.T, c.D, c.K, tail), func(t *testing.T) {
					testConvCase(t, newConvCase(uint64(i), c.T, c.D, c.K, tail))
				})
			}
		}
	})
}

func testConvCase(t *testing.T, s *convCase) {
	y, dx := newSpread(nil, s.T, s.D, 3), newSpread(nil, s.T, s.D, 2)
	a := &ConvArgs{
		T: s.T, Channels: s.D, K: s.K,
		X: newSpread(s.x, s.T, s.D, 5).Rows, Y: y.Rows,
		W: make([]float32, s.D*s.K), Bias: to32(s.bias),
	}
	if s.tail != nil {
		a.Tail = to32(s.tail)
	}
	ConvTaps(a.W, to32(s.w), s.D, s.K)
	ranges := func(f func(c0, c1 int)) {
		half := s.D / 3
		f(0, half)
		f(half, s.D)
	}
	ranges(func(c0, c1 int) { ConvSiLUForward(a, c0, c1) })
	checkNear(t, "y", y.values(t, "y"), s.y, 1e-6, 2e-6)

	dtaps, dbias := guardedCopy(make([]float32, s.D*s.K)), guardedCopy(make([]float32, s.D))
	g := &ConvGrads{DY: newSpread(s.dy, s.T, s.D, 1).Rows, DX: dx.Rows, DW: dtaps.x, DBias: dbias.x}
	ranges(func(c0, c1 int) { ConvSiLUBackward(a, g, c0, c1) })
	dtaps.check(t, "dw")
	dbias.check(t, "dbias")
	dw := make([]float32, s.D*s.K)
	ConvTapsGrad(dw, dtaps.x, s.D, s.K)
	checkNear(t, "dx", dx.values(t, "dx"), s.dx, 1e-6, 3e-6)
	checkNear(t, "dw", dw, s.dw, 1e-6, 1e-5)
	checkNear(t, "dbias", dbias.x, s.dbias, 1e-6, 5e-6)
}

func BenchmarkConvSiLU(b *testing.B) {
	const T, D, K = 512, 3072, 4
	r := rand.New(rand.NewPCG(43, 44))
	a := &ConvArgs{
		T: T, Channels: D, K: K, X: Rows{randomSlice(r, T*2*D, 1), 2 * D}, Y: Rows{make([]float32, T*D), D},
		W: randomSlice(r, K*D, 1), Bias: randomSlice(r, D, 1),
	}
	g := &ConvGrads{DY: Rows{randomSlice(r, T*D, 1), D}, DX: Rows{make([]float32, T*D), D}, DW: make([]float32, K*D), DBias: make([]float32, D)}
	benchLevels(b, func(b *testing.B) {
		b.Run("forward", func(b *testing.B) {
			b.SetBytes(2 * 4 * T * D)
			for b.Loop() {
				ConvSiLUForward(a, 0, D)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(T*D), "ns/element")
		})
		b.Run("backward", func(b *testing.B) {
			b.SetBytes(3 * 4 * T * D)
			for b.Loop() {
				ConvSiLUBackward(a, g, 0, D)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(T*D), "ns/element")
		})
	})
}
