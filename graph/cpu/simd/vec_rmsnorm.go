package simd

import "math"

// RMSNormRow sets dst[i] = w[i] * x[i] * rstd with rstd = 1 / sqrt(mean(x^2) + eps), and returns rstd, which
// RMSNormRowGrad needs. dst may be x.
func RMSNormRow(dst, x, w []float32, eps float32) (rstd float32) {
	checkLen("RMSNormRow", len(dst), len(x), len(w))
	if len(x) == 0 {
		return 0
	}
	k := vec()
	mean := float64(k.dot(x, x)) / float64(len(x))
	rstd = float32(1 / math.Sqrt(mean+float64(eps)))
	k.scaleMul(dst, rstd, x, w)
	return rstd
}

// RMSNormRowGrad is the gradient of RMSNormRow, given dy, the gradient of its dst. With n = len(x):
//
//	dx[i]  = rstd * w[i] * dy[i] - x[i] * rstd^3 / n * sum_j w[j] * dy[j] * x[j]
//	dw[i] += dy[i] * x[i] * rstd
//
// dx may be dy or x; dw must be a separate slice.
func RMSNormRowGrad(dx, dw, x, w, dy []float32, rstd float32) {
	checkLen("RMSNormRowGrad", len(dx), len(dw), len(x), len(w), len(dy))
	if len(x) == 0 {
		return
	}
	k := vec()
	r := float64(rstd)
	c := float32(r * r * r / float64(len(x)) * float64(k.dot3(w, dy, x)))
	k.rmsNormGrad(dx, dw, x, w, dy, rstd, c)
}
