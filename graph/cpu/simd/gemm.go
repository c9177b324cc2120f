package simd

import (
	"fmt"
	"math"
)

//go:generate go run ./gen/gemm -out gemm_tile_amd64.s -stubs gemm_tile_amd64.go -pkg simd

// Gemm describes the float32 matrix product C[M N] = op(A)[M K] op(B)[K N], or C += with Accumulate.
// Matrices are row-major; LDA, LDB and LDC are the distances between rows in elements. With TransA, A is
// stored as [K M], and with TransB, B as [N K].
//
// Every element of C is a sum over K in an order that depends only on M, N, K, the transposes and
// the instruction set, so the number of workers does not change a bit of the result.
type Gemm struct {
	M, N, K        int
	TransA, TransB bool
	LDA, LDB, LDC  int
	Accumulate     bool
	// RoundFactors rounds the elements of A and B to bfloat16, to nearest even. Sums stay float32.
	// With AVX512-BF16 (see BF16), numbers below 2^-126 are treated as 0.
	RoundFactors bool
	// BF16B: B is stored in bfloat16. Use BindBF16.
	BF16B bool
}

// Workspace returns the scratch memory that Bind needs with a pool of this many workers, in float32
// elements; Serial needs Workspace(1). It is that of the active level, and does not depend on LDA,
// LDB and LDC.
func (g Gemm) Workspace(workers int) int {
	g.LDA = math.MaxInt // callers may not know it yet, and widely spaced rows need the most
	p := g.plan()
	return p.workspace(workers)
}

// WorkspaceEither is the larger of Workspace with and without RoundFactors, for callers that do not
// know which it will be.
func (g Gemm) WorkspaceEither(workers int) int {
	g.RoundFactors = false
	float32s := g.Workspace(workers)
	g.RoundFactors = true
	return max(float32s, g.Workspace(workers))
}

// Bind returns the product of these operands as a function that allocates nothing and can be called
// any number of times, but not by two goroutines at once. The pool's workers share the work. C must
// not overlap A or B. The workspace must have at least g.Workspace(p.Workers()) elements, and
// nothing else may use it during a call. Bind panics if a slice is too short for g.
func (g Gemm) Bind(p Pool, a, b, c, workspace []float32) func() {
	g.check(false, a, len(b), c)
	return g.bind(p, &gemmRun{a: a, b: b, c: c}, workspace)
}

// BindBF16 is Bind with a B that is stored in bfloat16 (BF16B). Its elements are used unchanged,
// and so are those of A unless RoundFactors is set.
func (g Gemm) BindBF16(p Pool, a []float32, b []uint16, c, workspace []float32) func() {
	g.check(true, a, len(b), c)
	return g.bind(p, &gemmRun{a: a, b16: b, c: c}, workspace)
}

func (g Gemm) bind(p Pool, r *gemmRun, workspace []float32) func() {
	r.init(g, p.Workers(), workspace)
	if p.Workers() == 1 || r.small() {
		return r.serial
	}
	return r.bindParallel(p)
}

// Serial computes the product on the caller's goroutine and allocates nothing. The workspace must
// have at least g.Workspace(1) elements. Serial panics if a slice is too short for g.
func (g Gemm) Serial(a, b, c, workspace []float32) {
	g.check(false, a, len(b), c)
	r := gemmRun{a: a, b: b, c: c}
	r.init(g, 1, workspace)
	r.serial()
}

// check panics if g makes no sense, or if the operands, with lenB elements of B, are too short for
// it.
func (g Gemm) check(bf16B bool, a []float32, lenB int, c []float32) {
	if g.BF16B != bf16B {
		panic("simd: matrix product: BindBF16 is for a B that BF16B says is stored in bfloat16")
	}
	if g.M < 0 || g.N < 0 || g.K < 0 {
		panic(fmt.Sprintf("simd: matrix product with M=%d N=%d K=%d: sizes can't be negative", g.M, g.N, g.K))
	}
	if g.M == 0 || g.N == 0 {
		return
	}
	if g.K > 0 {
		rows, cols := g.M, g.K
		if g.TransA {
			rows, cols = cols, rows
		}
		checkMatrix("A", len(a), rows, cols, g.LDA)
		rows, cols = g.K, g.N
		if g.TransB {
			rows, cols = cols, rows
		}
		checkMatrix("B", lenB, rows, cols, g.LDB)
	}
	checkMatrix("C", len(c), g.M, g.N, g.LDC)
}

func checkMatrix(name string, length, rows, cols, ld int) {
	if ld < cols {
		panic(fmt.Sprintf("simd: matrix product: rows of %s are %d apart and %d long", name, ld, cols))
	}
	if ld > math.MaxInt/rows || length < (rows-1)*ld+cols {
		panic(fmt.Sprintf("simd: matrix product: %s has %d elements, too few for [%d %d] with rows %d apart",
			name, length, rows, cols, ld))
	}
}
