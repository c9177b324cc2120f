package simd

import (
	"math"
	"math/rand/v2"
	"testing"
)

// testLengths are near the widths of vectors and of unrolled loops.
var testLengths = []int{0, 1, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 200, 1031}

// benchLevels runs f once for every Level that the CPU has.
func benchLevels(b *testing.B, f func(b *testing.B)) {
	for _, l := range Levels() {
		b.Run(l.String(), func(b *testing.B) {
			defer Force(l)()
			f(b)
		})
	}
}

const (
	guardSize  = 24
	guardValue = float32(-12345.678)
)

// guarded is a slice of n NaNs that starts at an odd element of its allocation, between guard values.
type guarded struct{ all, x []float32 }

func newGuarded(n int) guarded {
	g := guarded{all: make([]float32, n+2*guardSize+1)}
	for i := range g.all {
		g.all[i] = guardValue
	}
	g.x = g.all[guardSize+1 : guardSize+1+n]
	for i := range g.x {
		g.x[i] = float32(math.NaN())
	}
	return g
}

func guardedCopy(x []float32) guarded {
	g := newGuarded(len(x))
	copy(g.x, x)
	return g
}

func (g guarded) check(t *testing.T, name string) {
	t.Helper()
	for i, v := range g.all {
		if (i <= guardSize || i > guardSize+len(g.x)) && v != guardValue {
			t.Fatalf("%s: guard element %d overwritten with %g", name, i-guardSize-1, v)
		}
	}
}

func randomSlice(r *rand.Rand, n int, scale float64) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64() * scale)
	}
	return x
}

// checkNear fails unless every got[i] is within relative*|want[i]| + absolute of want[i].
func checkNear(t *testing.T, name string, got []float32, want []float64, relative, absolute float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", name, len(got), len(want))
	}
	for i, w := range want {
		g := float64(got[i])
		if math.IsNaN(w) && math.IsNaN(g) || g == w {
			continue
		}
		if !(math.Abs(g-w) <= relative*math.Abs(w)+absolute) {
			t.Fatalf("%s[%d] of %d = %.9g, want %.9g", name, i, len(want), g, w)
		}
	}
}

// checkScaled fails unless got is within tolerance of want, as a fraction of want's largest element.
func checkScaled(t *testing.T, name string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	largest := 0.0
	for _, w := range want {
		largest = max(largest, math.Abs(w))
	}
	checkNear(t, name, got, want, 0, tolerance*largest)
}
