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
// Every element of C is a sum over K in an order that depends on M, N, K, the transposes and the level
// alone, so the number of workers does not change a bit of the result.
type Gemm struct {
	M, N, K        int
	TransA, TransB bool
	LDA, LDB, LDC  int
	Accumulate     bool
}

// Workspace returns how many float32s of scratch Bind needs with a pool of that many workers; Serial
// needs Workspace(1). The count is that of the active level, and does not depend on LDA, LDB and LDC.
func (g Gemm) Workspace(workers int) int {
	g.LDA = math.MaxInt // callers need not know it yet, and rows far apart take the most
	p := g.plan(kernelsOf(Active()))
	return p.workspace(workers)
}

// Bind returns the product of these operands as a function that allocates nothing and can be called any
// number of times, though not by two goroutines at once. The work is shared between the pool's workers.
// C must not overlap A or B. The workspace holds at least g.Workspace(p.Workers()) elements, and nothing
// else uses it during a call. Bind panics where a slice is too short for g.
func (g Gemm) Bind(p Pool, a, b, c, workspace []float32) func() {
	r := new(gemmRun)
	r.init(g, p.Workers(), a, b, c, workspace)
	if p.Workers() == 1 || r.small() {
		return r.serial
	}
	return r.bindParallel(p)
}

// Serial computes the product on the caller's goroutine and allocates nothing. The workspace holds at
// least g.Workspace(1) elements. Serial panics where a slice is too short for g.
func (g Gemm) Serial(a, b, c, workspace []float32) {
	var r gemmRun
	r.init(g, 1, a, b, c, workspace)
	r.serial()
}

// check panics where g makes no sense or the operands are too short for it.
func (g Gemm) check(a, b, c []float32) {
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
		checkMatrix("A", a, rows, cols, g.LDA)
		rows, cols = g.K, g.N
		if g.TransB {
			rows, cols = cols, rows
		}
		checkMatrix("B", b, rows, cols, g.LDB)
	}
	checkMatrix("C", c, g.M, g.N, g.LDC)
}

func checkMatrix(name string, x []float32, rows, cols, ld int) {
	if ld < cols {
		panic(fmt.Sprintf("simd: matrix product: rows of %s are %d apart and %d long", name, ld, cols))
	}
	if ld > math.MaxInt/rows || len(x) < (rows-1)*ld+cols {
		panic(fmt.Sprintf("simd: matrix product: %s has %d elements, too few for [%d %d] with rows %d apart",
			name, len(x), rows, cols, ld))
	}
}
