package simd

import (
	"runtime"
	"unsafe"
)

// fmaVectors is the number of independent sums that FMAs adds to in a round.
const fmaVectors = 12

// FMAs does `rounds` rounds of independent multiply-adds in registers, on the active level's
// vectors, and returns the number of floating-point operations, two per element and multiply-add.
// It measures the peak of a core.
func FMAs(rounds int) (flops float64) {
	if rounds <= 0 {
		return 0
	}
	vec().fmas(rounds)
	lanes := [...]int{Portable: 1, AVX2: 8, AVX512: 16}[Active()]
	return 2 * fmaVectors * float64(lanes) * float64(rounds)
}

// Triad sets dst[i] = x[i] + a * y[i] with non-temporal stores if the level has them, so that it
// moves exactly 12 bytes per element. It measures the peak of memory.
func Triad(dst []float32, a float32, x, y []float32) {
	checkLen("Triad", len(dst), len(x), len(y))
	if n := min(toLine(dst), len(dst)); n > 0 {
		triadGo(dst[:n], a, x[:n], y[:n])
		dst, x, y = dst[n:], x[n:], y[n:]
	}
	vec().triad(dst, a, x, y)
}

// toLine is the number of elements before the first one at the start of a cache line.
func toLine(x []float32) int {
	const line = 64
	return int(-uintptr(unsafe.Pointer(unsafe.SliceData(x)))%line) / 4
}

func fmasGo(rounds int) {
	var a, b, c, d, e, f, g, h, i, j, k, l float32
	x := 1 / float32(rounds+1) // not known to the compiler, and sums stay small
	for range rounds {
		a, b, c, d = a*x+1, b*x+1, c*x+1, d*x+1
		e, f, g, h = e*x+1, f*x+1, g*x+1, h*x+1
		i, j, k, l = i*x+1, j*x+1, k*x+1, l*x+1
	}
	runtime.KeepAlive(a + b + c + d + e + f + g + h + i + j + k + l)
}

func triadGo(dst []float32, a float32, x, y []float32) {
	for i := range dst {
		dst[i] = x[i] + a*y[i]
	}
}
