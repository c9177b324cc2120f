package simd

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestReductions(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	eachLevel(t, func(t *testing.T) {
		for _, n := range testLengths {
			x, y := guardedCopy(randomSlice(r, n, 2)).x, guardedCopy(randomSlice(r, n, 2)).x
			var dot, sum, squares, magnitude float64
			greatest := math.Inf(-1)
			for i := range x {
				v, w := float64(x[i]), float64(y[i])
				dot += v * w
				sum += v
				squares += v * v
				magnitude += math.Abs(v) + math.Abs(v*w)
				greatest = math.Max(greatest, v)
			}
			absolute := 2e-7 * magnitude
			checkNear(t, "Dot", []float32{Dot(x, y)}, []float64{dot}, 0, absolute)
			checkNear(t, "Sum", []float32{Sum(x)}, []float64{sum}, 0, absolute)
			checkNear(t, "Max", []float32{Max(x)}, []float64{greatest}, 0, 0)
			if got := SumSquares(x); !(math.Abs(got-squares) <= 1e-14*squares) {
				t.Errorf("SumSquares of %d = %.17g, want %.17g", n, got, squares)
			}

			dst := newGuarded(n)
			var want float64
			top := Max(x)
			for _, v := range x {
				want += math.Exp(float64(v) - float64(top))
			}
			checkNear(t, "SoftmaxExp", []float32{SoftmaxExp(dst.x, x, top)}, []float64{want}, 5e-7, 0)
			dst.check(t, "SoftmaxExp")
		}
	})
}

func TestMaxSpecial(t *testing.T) {
	nan := float32(math.NaN())
	eachLevel(t, func(t *testing.T) {
		for _, n := range []int{1, 5, 16, 40, 130} {
			for _, c := range []struct{ fill, one, want float32 }{
				{-5, -1, -1}, {-inf, -inf, -inf}, {nan, 3, 3}, {3, nan, 3}, {1, inf, inf}, {-inf, -1e30, -1e30},
			} {
				if n == 1 && (c.fill != c.fill || c.one != c.one) {
					continue
				}
				for at := range n {
					x := make([]float32, n)
					for i := range x {
						x[i] = c.fill
					}
					x[at] = c.one
					if got := Max(x); got != c.want {
						t.Fatalf("Max of %d elements %g, and %g at %d: %g, want %g", n, c.fill, c.one, at, got, c.want)
					}
				}
			}
		}
	})
}

// TestSumSquaresWide: float64 can represent squares that float32 can't.
func TestSumSquaresWide(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		x := make([]float32, 100)
		for i := range x {
			x[i] = 1e25
		}
		want := 100 * float64(x[0]) * float64(x[0])
		if got := SumSquares(x); !(math.Abs(got/want-1) <= 1e-12) {
			t.Errorf("SumSquares = %g, want %g", got, want)
		}
	})
}

func BenchmarkReductions(b *testing.B) {
	const n = 1 << 14
	r := rand.New(rand.NewPCG(13, 14))
	x, y := randomSlice(r, n, 2), randomSlice(r, n, 2)
	for _, f := range []struct {
		name string
		f    func()
	}{
		{"Dot", func() { Dot(x, y) }}, {"Sum", func() { Sum(x) }}, {"SumSquares", func() { SumSquares(x) }}, {"Max", func() { Max(x) }},
	} {
		b.Run(f.name, func(b *testing.B) {
			benchLevels(b, func(b *testing.B) {
				for b.Loop() {
					f.f()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
			})
		})
	}
}
