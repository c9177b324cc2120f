package simd

import "fmt"

// The element-wise functions take slices of equal length and panic if lengths differ. dst may be
// the same slice as an input, but must not overlap one otherwise.

// Exp sets dst[i] = exp(x[i]) to within 1 ulp: denormal below -87.3, 0 below -104, +Inf above 88.7,
// NaN for NaN.
func Exp(dst, x []float32) {
	checkLen("Exp", len(dst), len(x))
	vec().exp(dst, x)
}

// Sigmoid sets dst[i] = 1 / (1 + exp(-x[i])).
func Sigmoid(dst, x []float32) {
	checkLen("Sigmoid", len(dst), len(x))
	vec().sigmoid(dst, x)
}

// SiLU sets dst[i] = x[i] * sigmoid(x[i]).
func SiLU(dst, x []float32) {
	checkLen("SiLU", len(dst), len(x))
	vec().silu(dst, x)
}

// SiLUGrad sets dst[i] = dy[i] * silu'(x[i]), with silu'(x) = s + x s (1-s) and s = sigmoid(x).
func SiLUGrad(dst, x, dy []float32) {
	checkLen("SiLUGrad", len(dst), len(x), len(dy))
	vec().siluGrad(dst, x, dy)
}

// Softplus sets dst[i] = log(1 + exp(x[i])), with small relative error even where x is very
// negative, and equal to x above 20, where float32 can't distinguish the two.
func Softplus(dst, x []float32) {
	checkLen("Softplus", len(dst), len(x))
	vec().softplus(dst, x)
}

// Add sets dst[i] = a[i] + b[i].
func Add(dst, a, b []float32) {
	checkLen("Add", len(dst), len(a), len(b))
	vec().add(dst, a, b)
}

// Mul sets dst[i] = a[i] * b[i].
func Mul(dst, a, b []float32) {
	checkLen("Mul", len(dst), len(a), len(b))
	vec().mul(dst, a, b)
}

// MulAdd sets dst[i] += a[i] * b[i].
func MulAdd(dst, a, b []float32) {
	checkLen("MulAdd", len(dst), len(a), len(b))
	vec().mulAdd(dst, a, b)
}

// Scale sets dst[i] = a * x[i].
func Scale(dst []float32, a float32, x []float32) {
	checkLen("Scale", len(dst), len(x))
	vec().scale(dst, a, x)
}

// Axpy sets y[i] += a * x[i].
func Axpy(a float32, x, y []float32) {
	checkLen("Axpy", len(x), len(y))
	vec().axpy(a, x, y)
}

// SwiGLU sets dst[i] = silu(gate[i]) * up[i].
func SwiGLU(dst, gate, up []float32) {
	checkLen("SwiGLU", len(dst), len(gate), len(up))
	vec().swiGLU(dst, gate, up)
}

// SwiGLUGrad sets dgate[i] = dy[i] * up[i] * silu'(gate[i]) and dup[i] = dy[i] * silu(gate[i]).
// dgate and dup may each be the same slice as an input, but not the same as each other.
func SwiGLUGrad(dgate, dup, gate, up, dy []float32) {
	checkLen("SwiGLUGrad", len(dgate), len(dup), len(gate), len(up), len(dy))
	vec().swiGLUGrad(dgate, dup, gate, up, dy)
}

// GatedUpdate sets dst[i] = x[i] + sigmoid(gate[i]) * (silu(h[i]) - x[i]).
func GatedUpdate(dst, x, gate, h []float32) {
	checkLen("GatedUpdate", len(dst), len(x), len(gate), len(h))
	vec().gatedUpdate(dst, x, gate, h)
}

// GatedUpdateGrad is the gradient of GatedUpdate, given dy, the gradient of its dst. With s = sigmoid(gate[i]):
//
//	dx[i]    = dy[i] * (1-s)
//	dgate[i] = dy[i] * (silu(h[i]) - x[i]) * s * (1-s)
//	dh[i]    = dy[i] * s * silu'(h[i])
//
// Each of them may be the same slice as an input, but not the same as each other.
// Each of them may be the same slice as an input, but not as one another.
func GatedUpdateGrad(dx, dgate, dh, x, gate, h, dy []float32) {
	checkLen("GatedUpdateGrad", len(dx), len(dgate), len(dh), len(x), len(gate), len(h), len(dy))
	vec().gatedUpdateGrad(dx, dgate, dh, x, gate, h, dy)
}

// Rotate rotates the pairs (x[i], x[n+i]), with n = len(cos), by angles given by their cosines and
// sines:
func Rotate(y, x, cos, sin []float32) {
	checkLen("Rotate", len(y), len(x), 2*len(cos))
	checkLen("Rotate: sin", len(sin), len(cos))
	vec().rotate(y, x, cos, sin)
}

// checkLen panics unless all lengths are the same.
func checkLen(name string, n int, others ...int) {
	for _, m := range others {
		if m != n {
			panic(fmt.Sprintf("simd: %s: slices of different lengths %d and %d", name, n, m))
		}
	}
}
