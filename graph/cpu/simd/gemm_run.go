package simd

import (
	"fmt"
	"unsafe"
)

// gemmRun is a product with its operands, and the block that is being computed.
type gemmRun struct {
	gemmPlan
	a, b, c     []float32
	copiesA     []float32 // one of workspaceA elements a worker
	copyB       []float32
	packedBlock []int // by worker: 1 + the block of A that its copy holds

	j0, j1 int // columns of the block
	k0, k1 int // steps over K of the block

	colParts int // tasks that share a block of A
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
	// Vectors of the copies must not straddle cache lines, and a workspace may start anywhere.
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(workspace))) / 4 % lineWidth)
	workspace = workspace[skip:]
	r.copiesA = workspace[:workers*r.workspaceA()]
	r.copyB = workspace[len(r.copiesA):]
	r.colParts = 1
}

// small says whether the product is over before other workers would have woken up.
func (r *gemmRun) small() bool { return r.M*r.N*r.K < 1<<17 }

func (r *gemmRun) serial() {
	if r.rowPanels == 0 {
		r.empty()
		return
	}
	for r.j0 = 0; r.j0 < r.N; r.j0 = r.j1 {
		r.j1 = min(r.N, r.j0+r.nBlock)
		for r.k0 = 0; r.k0 < r.K; r.k0 = r.k1 {
			r.k1 = min(r.K, r.k0+r.kBlock)
			r.nextBlock()
			if r.packB {
				r.packPanelsB(r.j0, r.j1)
			}
			for t := range r.tasks() {
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

// nextBlock forgets the copies of A.
func (r *gemmRun) nextBlock() { clear(r.packedBlock) }

func (r *gemmRun) blocksA() int { return ceilDiv(r.rowPanels, r.mPanels) }
func (r *gemmRun) tasks() int   { return r.blocksA() * r.colParts }

// tasksPerWorker makes the end of a block even when workers are not equally fast.
const tasksPerWorker = 12

// panelsPerCopy is how many panels of B a task copies.
const panelsPerCopy = 4

func (r *gemmRun) bindParallel(p Pool) func() {
	panels := ceilDiv(min(r.N, r.nBlock), r.kernels.cols)
	r.colParts = max(1, min(ceilDiv(tasksPerWorker*p.Workers(), r.blocksA()), panels))
	pack := func(task, _ int) {
		width := panelsPerCopy * r.kernels.cols
		j := r.j0 + task*width
		r.packPanelsB(j, min(r.j1, j+width))
	}
	compute := r.compute
	return func() {
		for r.j0 = 0; r.j0 < r.N; r.j0 = r.j1 {
			r.j1 = min(r.N, r.j0+r.nBlock)
			for r.k0 = 0; r.k0 < r.K; r.k0 = r.k1 {
				r.k1 = min(r.K, r.k0+r.kBlock)
				r.nextBlock()
				if r.packB {
					p.Run(ceilDiv(r.j1-r.j0, panelsPerCopy*r.kernels.cols), pack)
				}
				p.Run(r.tasks(), compute)
			}
		}
	}
}

// packPanelsB copies the panels of B between the columns lo and hi, which lie in the block. Columns that a
// panel lacks are zero.
func (r *gemmRun) packPanelsB(lo, hi int) {
	width, steps := r.kernels.cols, r.k1-r.k0
	for j := lo; j < hi; j += width {
		r.packPanelB(r.copyB[(j-r.j0)*r.kBlock:][:width*steps], j, min(width, r.N-j))
	}
}

func (r *gemmRun) packPanelB(panel []float32, j, cols int) {
	width, steps := r.kernels.cols, r.k1-r.k0
	if cols < width {
		clear(panel)
	}
	if r.TransB {
		r.kernels.transpose(panel, width, r.b[j*r.LDB+r.k0:], r.LDB, cols, steps)
		return
	}
	r.kernels.copyRows(panel, width, r.b[r.k0*r.LDB+j:], r.LDB, steps, cols)
}

// packBlockA copies the panels [lo, hi) of A: all rows of a panel at one step are side by side.
func (r *gemmRun) packBlockA(block []float32, lo, hi int) {
	steps := r.k1 - r.k0
	first, _ := r.panelA(lo)
	for p := lo; p < hi; p++ {
		i0, i1 := r.panelA(p)
		panel := block[(i0-first)*steps:][:(i1-i0)*steps]
		if r.TransA {
			r.kernels.copyRows(panel, i1-i0, r.a[r.k0*r.LDA+i0:], r.LDA, steps, i1-i0)
		} else {
			r.kernels.transpose(panel, i1-i0, r.a[i0*r.LDA+r.k0:], r.LDA, i1-i0, steps)
		}
	}
}

// compute is a task: a block of A with one of colParts parts of the block of B.
func (r *gemmRun) compute(task, worker int) {
	block, part := task/r.colParts, task%r.colParts
	lo, hi := block*r.mPanels, min(r.rowPanels, (block+1)*r.mPanels)
	var copyA []float32
	if r.packA {
		copyA = r.copiesA[worker*r.workspaceA():][:r.workspaceA()]
		if r.packedBlock[worker] != block+1 {
			r.packBlockA(copyA, lo, hi)
			r.packedBlock[worker] = block + 1
		}
	}
	panels := ceilDiv(r.j1-r.j0, r.kernels.cols)
	j0 := r.j0 + part*panels/r.colParts*r.kernels.cols
	j1 := min(r.j1, r.j0+(part+1)*panels/r.colParts*r.kernels.cols)
	for j := j0; j < j1; {
		width := r.widthB(j)
		r.computePanel(copyA, lo, hi, j, min(width, j1-j), worker)
		j += width
	}
}

// computePanel computes the columns [j, j+cols) of C for the panels [lo, hi) of A.
func (r *gemmRun) computePanel(copyA []float32, lo, hi, j, cols, worker int) {
	steps := r.k1 - r.k0
	accumulate := r.Accumulate || r.k0 > 0
	var b []float32
	bK := r.kernels.cols
	switch {
	case r.packB:
		b = r.copyB[(j-r.j0)*r.kBlock:][:bK*steps]
	case cols%r.kernels.lanes != 0:
		b = r.copyB[worker*r.workspaceB():][:bK*steps]
		r.packPanelB(b, j, cols)
	default:
		b, bK = r.b[r.k0*r.LDB+j:], r.LDB
	}
	first, _ := r.panelA(lo)
	for p := lo; p < hi; p++ {
		i0, i1 := r.panelA(p)
		var a []float32
		var aRow, aK int
		switch {
		case r.packA:
			a, aRow, aK = copyA[(i0-first)*steps:], 1, i1-i0
		case r.TransA:
			a, aRow, aK = r.a[r.k0*r.LDA+i0:], 1, r.LDA
		default:
			a, aRow, aK = r.a[i0*r.LDA+r.k0:], r.LDA, 1
		}
		r.kernels.tile(steps, a, aRow, aK, b, bK, r.c[i0*r.LDC+j:], r.LDC, i1-i0, cols, accumulate)
	}
}
