package simd

import (
	"math/rand/v2"
	"testing"
)

func TestTriad(t *testing.T) {
	r := rand.New(rand.NewPCG(61, 62))
	eachLevel(t, func(t *testing.T) {
		for _, n := range testLengths {
			x, y, dst := guardedCopy(randomSlice(r, n, 2)), guardedCopy(randomSlice(r, n, 2)), newGuarded(n)
			Triad(dst.x, -1.5, x.x, y.x)
			want := make([]float64, n)
			for i := range want {
				want[i] = float64(x.x[i]) - 1.5*float64(y.x[i])
			}
			checkNear(t, "Triad", dst.x, want, 0, 1e-6)
			dst.check(t, "Triad")
		}
	})
}

func TestFMAs(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		one, many := FMAs(1), FMAs(1000)
		if lanes := one / (2 * fmaVectors); lanes != 1 && lanes != 8 && lanes != 16 {
			t.Errorf("a round is %g operations, of %g lanes", one, lanes)
		}
		if many != 1000*one {
			t.Errorf("1000 rounds are %g operations, one is %g", many, one)
		}
		if n := FMAs(0); n != 0 {
			t.Errorf("no round is %g operations", n)
		}
	})
}
