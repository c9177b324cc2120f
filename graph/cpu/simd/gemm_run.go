package simd

import (
	"fmt"
	"unsafe"
)

// gemmRun is a product with its operands, and the part of it that is being computed.
type gemmRun struct {
	gemmPlan
	a, b, c []float32
	copiesA []float32 // one of workspaceA elements a worker
	copyB   []float32

	rowParts, colParts int // tasks: parts of the rows times parts of the columns

	j0, j1 int // columns of the part
	k0, k1 int // steps over K of the part
}

func (r *gemmRun) init(g Gemm, workers int, a, b, c, workspace []float32) {
	g.check(a, b, c)
	r.gemmPlan = g.plan(kernelsOf(Active()))
	r.a, r.b, r.c = a, b, c
	need := r.workspace(workers)
	if len(workspace) < need {
		panic(fmt.Sprintf("simd: matrix product: the workspace has %d elements, %d are needed", len(workspace), need))
	}
	if need == 0 {
		return
	}
	r.rowParts, r.colParts = r.parts(workers)

	// Vectors of the copies must not straddle cache lines, and a workspace may start anywhere.
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(workspace))) / 4 % lineWidth)
	workspace = workspace[skip:]
	r.copiesA = workspace[:workers*r.workspaceA()]
	r.copyB = workspace[len(r.copiesA):]
}

// small says whether the product is over before other workers would have woken up.
func (r *gemmRun) small() bool { return r.M*r.N*r.K < smallProduct }

const (
	smallProduct   = 1 << 20 // multiply-adds: 12 us with AVX-512
	smallTask      = 1 << 19
	tasksPerWorker = 12 // makes the end even when workers are not equally fast
	minColPanels   = 8  // of B in a task: with fewer, copying A shows
	panelsPerCopy  = 8  // of B
)

// parts returns into how many parts the rows and columns of C are cut for tasks. Every part of the columns
// copies A again, so there are only as many as it takes to keep the tasks that run at the same time on the
// same nBlock columns of B, and all workers busy.
func (r *gemmRun) parts(workers int) (rows, cols int) {
	rows = ceilDiv(r.rowPanels, maxPanels)
	if workers == 1 {
		return rows, 1
	}
	n := min(r.N, r.nCopy)
	cols = ceilDiv(n, r.nBlock)
	tasks := min(tasksPerWorker*workers, ceilDiv(r.M*n*min(r.K, r.kBlock), smallTask))
	rows = min(r.rowPanels, max(rows, ceilDiv(tasks, cols)))
	cols = max(cols, min(ceilDiv(tasks, rows), ceilDiv(n, minColPanels*r.kernels.cols)))
	return rows, cols
}

func (r *gemmRun) serial() {
	if r.rowPanels == 0 {
		r.empty()
		return
	}
	if r.dot {
		r.computeDots(0, 1)
		return
	}
	for r.j0 = 0; r.j0 < r.N; r.j0 = r.j1 {
		r.j1 = min(r.N, r.j0+r.nCopy)
		for r.k0 = 0; r.k0 < r.K; r.k0 = r.k1 {
			r.k1 = min(r.K, r.k0+r.kBlock)
			if r.packB {
				r.packPanelsB(r.j0, r.j1)
			}
			for t := range r.rowParts * r.colParts {
				r.compute(t, 0)
			}
		}
	}
}

// empty is the product over no steps, or of no elements.
func (r *gemmRun) empty() {
	if r.Accumulate || r.N == 0 {
		return
	}
	for i := range r.M {
		clear(r.c[i*r.LDC:][:r.N])
	}
}

func (r *gemmRun) bindParallel(p Pool) func() {
	if r.dot {
		tasks := min(tasksPerWorker*p.Workers(), ceilDiv(r.M*r.N*r.K, smallTask))
		dots := func(task, _ int) { r.computeDots(task, tasks) }
		return func() { p.Run(tasks, dots) }
	}
	pack := func(task, _ int) {
		width := panelsPerCopy * r.kernels.cols
		j := r.j0 + task*width
		r.packPanelsB(j, min(r.j1, j+width))
	}
	compute := r.compute
	return func() {
		for r.j0 = 0; r.j0 < r.N; r.j0 = r.j1 {
			r.j1 = min(r.N, r.j0+r.nCopy)
			for r.k0 = 0; r.k0 < r.K; r.k0 = r.k1 {
				r.k1 = min(r.K, r.k0+r.kBlock)
				if r.packB {
					p.Run(ceilDiv(r.j1-r.j0, panelsPerCopy*r.kernels.cols), pack)
				}
				p.Run(r.rowParts*r.colParts, compute)
			}
		}
	}
}

// packPanelsB copies the panels of B between the columns lo and hi.
func (r *gemmRun) packPanelsB(lo, hi int) {
	width, steps := r.kernels.cols, r.k1-r.k0
	chunk := r.stepsPerCopy(r.TransB)
	for k := 0; k < steps; k += chunk {
		for j := lo; j < hi; j += width {
			panel := r.copyB[(j-r.j0)*r.kBlock+k*width:]
			r.packPanelB(panel, j, r.k0+k, min(chunk, steps-k))
		}
	}
}

// packPanelB copies steps steps from step k of the panel of B at column j. Columns that the panel lacks are
// zero: they don't reach C, but what lay there before could be subnormal, and slow.
func (r *gemmRun) packPanelB(panel []float32, j, k, steps int) {
	width := r.kernels.cols
	cols := min(width, r.N-j)
	if cols < width {
		clear(panel[:steps*width])
	}
	if r.TransB {
		r.kernels.transpose(panel, width, r.b[j*r.LDB+k:], r.LDB, cols, steps)
	} else {
		r.kernels.copyRows(panel, width, r.b[k*r.LDB+j:], r.LDB, steps, cols)
	}
}

// packPanelsA copies the panels [lo, hi) of A: all rows of a panel at one step are side by side.
func (r *gemmRun) packPanelsA(copyA []float32, lo, hi int) {
	steps := r.k1 - r.k0
	chunk := r.stepsPerCopy(!r.TransA)
	for k := 0; k < steps; k += chunk {
		for i := lo; i < hi; i++ {
			i0, i1 := r.panelA(i)
			rows, n := i1-i0, min(chunk, steps-k)
			panel := r.copyOfA(copyA, i-lo)[k*rows:]
			if r.TransA {
				r.kernels.copyRows(panel, rows, r.a[(r.k0+k)*r.LDA+i0:], r.LDA, n, rows)
			} else {
				r.kernels.transpose(panel, rows, r.a[i0*r.LDA+r.k0+k:], r.LDA, rows, n)
			}
		}
	}
}

// stepsPerCopy is how many steps of one panel are copied before the next panel's: all of them where an
// operand's rows run along K, and else a few, as the steps are far apart while neighbouring panels share
// pages and cache lines.
func (r *gemmRun) stepsPerCopy(alongK bool) int {
	if alongK {
		return r.kBlock
	}
	return 16
}

// copyOfA returns the copy of the i-th panel of A in a task.
func (r *gemmRun) copyOfA(copyA []float32, i int) []float32 {
	return copyA[i*r.kernels.rows*r.kBlock:][:r.kernels.rows*r.kBlock]
}

// compute is a task: a part of the rows of C and a part of the columns. Tasks that follow each other read
// the same part of B.
func (r *gemmRun) compute(task, worker int) {
	col, row := task/r.rowParts, task%r.rowParts
	lo, hi := row*r.rowPanels/r.rowParts, (row+1)*r.rowPanels/r.rowParts
	panels := ceilDiv(r.j1-r.j0, r.kernels.cols)
	j0 := r.j0 + col*panels/r.colParts*r.kernels.cols
	j1 := min(r.j1, r.j0+(col+1)*panels/r.colParts*r.kernels.cols)

	copyA := r.copiesA[worker*r.workspaceA():][:r.workspaceA()]
	if r.packA {
		r.packPanelsA(copyA, lo, hi)
	}
	for j := j0; j < j1; j += r.nBlock {
		for i := lo; i < hi; i++ {
			var a []float32
			var aRow, aK int
			i0, i1 := r.panelA(i)
			switch {
			case r.packA:
				a, aRow, aK = r.copyOfA(copyA, i-lo), 1, i1-i0
			case r.TransA:
				a, aRow, aK = r.a[r.k0*r.LDA+i0:], 1, r.LDA
			default:
				a, aRow, aK = r.a[i0*r.LDA+r.k0:], r.LDA, 1
			}
			r.computeRows(a, aRow, aK, i0, i1-i0, j, min(j1, j+r.nBlock), worker, i == lo)
		}
	}
}

// computeRows computes the columns [j, j1) of rows rows of C from row i. With newB, a copy of the right edge
// of B is not that of the rows before.
func (r *gemmRun) computeRows(a []float32, aRow, aK, i, rows, j, j1, worker int, newB bool) {
	steps := r.k1 - r.k0
	accumulate := r.Accumulate || r.k0 > 0
	for j < j1 {
		width := r.widthB(j)
		cols := min(width, j1-j)
		var b []float32
		bK := r.kernels.cols
		switch {
		case r.packB:
			b = r.copyB[(j-r.j0)*r.kBlock:][:bK*steps]
		case cols%r.kernels.lanes != 0:
			b = r.copyB[worker*r.workspaceB():][:bK*steps]
			if newB {
				r.packPanelB(b, j, r.k0, steps)
			}
		default:
			b, bK = r.b[r.k0*r.LDB+j:], r.LDB
		}
		r.kernels.tile(steps, a, aRow, aK, b, bK, r.c[i*r.LDC+j:], r.LDC, rows, cols, accumulate)
		j += width
	}
}

// computeDots computes part of parts of C in tiles of dot products.
func (r *gemmRun) computeDots(part, parts int) {
	i0, i1, j0, j1 := 0, r.M, 0, r.N
	if r.N <= dotMaxN {
		i0, i1 = part*r.M/parts, (part+1)*r.M/parts
	} else {
		groups := ceilDiv(r.N, dotCols)
		j0, j1 = part*groups/parts*dotCols, min(r.N, (part+1)*groups/parts*dotCols)
	}
	for j := j0; j < j1; {
		cols := dotCols
		if j1-j < dotCols {
			cols = 1
		}
		for i := i0; i < i1; i += r.kernels.dotRows {
			rows := min(r.kernels.dotRows, i1-i)
			r.kernels.dot(r.K, r.a[i*r.LDA:], r.LDA, r.b[j*r.LDB:], r.LDB, r.c[i*r.LDC+j:], r.LDC, rows, cols, r.Accumulate)
		}
		j += cols
	}
}
