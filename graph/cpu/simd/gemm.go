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
// Every element of C is a sum over K in an order that depends on M, N, K, the transposes and the instruction
// set alone, so the number of workers does not change a bit of the result.
type Gemm struct {
	M, N, K        int
	TransA, TransB bool
	LDA, LDB, LDC  int
	Accumulate     bool
	// RoundFactors rounds the elements of A and B to bfloat16, to nearest even. Sums stay float32. With
	// AVX512-BF16 (see BF16), numbers below 2^-126 count as 0.
	RoundFactors bool
	// BF16B: B is stored in bfloat16. BindBF16 takes it.
	BF16B bool
}

// Workspace returns how many float32s of scratch Bind needs with a pool of that many workers; Serial
// needs Workspace(1). The count is that of the active level, and does not depend on LDA, LDB and LDC.
func (g Gemm) Workspace(workers int) int {
	g.LDA = math.MaxInt // callers need not know it yet, and rows far apart take the most
	p := g.plan()
	return p.workspace(workers)
}

// WorkspaceEither is Workspace with RoundFactors or without, whichever is more, for callers that ask before they
// know.
func (g Gemm) WorkspaceEither(workers int) int {
	g.RoundFactors = false
	float32s := g.Workspace(workers)
	g.RoundFactors = true
	return max(float32s, g.Workspace(workers))
}

// Bind returns the product of these operands as a function that allocates nothing and can be called any
// number of times, though not by two goroutines at once. The work is shared between the pool's workers.
// C must not overlap A or B. The workspace holds at least g.Workspace(p.Workers()) elements, and nothing
// else uses it during a call. Bind panics where a slice is too short for g.
func (g Gemm) Bind(p Pool, a, b, c, workspace []float32) func() {
	g.check(false, a, len(b), c)
	return g.bind(p, &gemmRun{a: a, b: b, c: c}, workspace)
}

// BindBF16 is Bind of a B that is stored in bfloat16, as BF16B says. Its elements are taken as they are, and
// those of A too unless RoundFactors says otherwise.
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

// Serial computes the product on the caller's goroutine and allocates nothing. The workspace holds at
// least g.Workspace(1) elements. Serial panics where a slice is too short for g.
func (g Gemm) Serial(a, b, c, workspace []float32) {
	g.check(false, a, len(b), c)
	r := gemmRun{a: a, b: b, c: c}
	r.init(g, 1, workspace)
	r.serial()
}

// check panics where g makes no sense, or where the operands, of which B has lenB elements, are too short for it.
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
