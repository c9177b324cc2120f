package simd

import "fmt"

// Rows is a matrix whose rows are Stride elements apart: row t of a matrix with n columns is
// Data[t*Stride : t*Stride+n]. Some columns of a wider matrix are a Rows over the same memory.
type Rows struct {
	Data   []float32
	Stride int
}

// row returns columns [c0, c1) of row t.
func (r Rows) row(t, c0, c1 int) []float32 {
	return r.Data[t*r.Stride+c0 : t*r.Stride+c1]
}

// check panics unless r holds t rows of n columns.
func (r Rows) check(name string, t, n int) {
	if t > 0 && (r.Stride < n || len(r.Data) < (t-1)*r.Stride+n) {
		panic(fmt.Sprintf("simd: %s: %d elements with stride %d can't hold %d rows of %d", name, len(r.Data), r.Stride, t, n))
	}
}

// checkSize panics unless a buffer has n elements.
func checkSize(name string, x []float32, n int) {
	if len(x) != n {
		panic(fmt.Sprintf("simd: %s has %d elements, want %d", name, len(x), n))
	}
}

// checkRange panics unless [lo, hi) is within [0, n).
func checkRange(name string, lo, hi, n int) {
	if lo < 0 || lo > hi || hi > n {
		panic(fmt.Sprintf("simd: %s: range [%d, %d) outside [0, %d)", name, lo, hi, n))
	}
}
