package simd

import (
	"math"
	"slices"
)

// The reductions add in a fixed order of lanes, which depends only on the length and the Level.

// Dot returns the sum of a[i] * b[i], accumulated in float32.
func Dot(a, b []float32) float32 {
	checkLen("Dot", len(a), len(b))
	return vec().dot(a, b)
}

// Sum returns the sum of x[i], accumulated in float32.
func Sum(x []float32) float32 { return vec().sum(x) }

// SumSquares returns the sum of x[i]^2, accumulated in float64.
func SumSquares(x []float32) float64 { return vec().sumSquares(x) }

// Max returns the greatest element, -Inf for an empty slice. It ignores NaNs: a softmax that gets
// its maximum here still encounters them in SoftmaxExp, whose sum is then NaN.
func Max(x []float32) float32 {
	if len(x) == 0 {
		return float32(math.Inf(-1))
	}
	return vec().max(x)
}

// ArgMax returns the first index of the largest element, or 0 if there is none above -Inf. NaNs are
// ignored.
func ArgMax(x []float32) int {
	const block = 256 // elements per call of Max
	top, first := float32(math.Inf(-1)), 0
	for at := 0; at < len(x); at += block {
		if y := Max(x[at:min(at+block, len(x))]); y > top {
			top, first = y, at
		}
	}
	return first + max(0, slices.Index(x[first:], top))
}

// SoftmaxExp sets dst[i] = exp(x[i] - max) and returns the sum of dst, so that Scale(dst, 1/sum, dst)
// completes a softmax. dst may be x.
func SoftmaxExp(dst, x []float32, max float32) (sum float32) {
	checkLen("SoftmaxExp", len(dst), len(x))
	return vec().softmaxExp(dst, x, max)
}
