package simd

import (
	"fmt"
	"unsafe"
)

// gemmRun is a product with its operands, and the part of it that is being computed.
type gemmRun struct {
	gemmPlan
	a, b, c []float32
	b16     []uint16  // B if it is stored in bfloat16
	copiesA []float32 // workspaceA elements per worker; for dot products all of A, rounded
	convert []float32 // two buffers of convertSize elements per worker; for dot products dotCols rows of B, rounded
	copyB   []float32

	tasks []gemmTask // the tasks of C's columns [j0, j1), for several workers

	j0, j1 int // columns of the part
	k0, k1 int // steps over K of the part
}

func (r *gemmRun) init(g Gemm, workers int, workspace []float32) {
	r.gemmPlan = g.plan()
	need := r.workspace(workers)
	if len(workspace) < need {
		panic(fmt.Sprintf("simd: matrix product: the workspace has %d elements, %d are needed", len(workspace), need))
	}
	if need == 0 {
		return
	}
	// Vectors of the copies must not cross cache lines, and a workspace may start anywhere.
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(workspace))) / 4 % lineWidth)
	workspace = workspace[skip:]
	if r.dot {
		r.copiesA = workspace[:r.M*r.dotStride()]
		r.convert = workspace[len(r.copiesA):]
		return
	}
	r.copiesA = workspace[:workers*r.workspaceA()]
	workspace = workspace[len(r.copiesA):]
	r.convert = workspace[:workers*2*r.convertSize()]
	r.copyB = workspace[len(r.convert):]
}

// small reports whether the product would be done before other workers could join in.
func (r *gemmRun) small() bool { return r.M*r.N*r.K < smallProduct }

// gemmTask is panels [lo, hi) of A, and the panels of B from column j0 to j1, relative to the run's
// columns.
type gemmTask struct{ lo, hi, j0, j1 int }

const (
	smallProduct   = 1 << 19 // multiply-adds: 5 us with AVX-512
	smallTask      = 1 << 18
	tasksPerWorker = 12 // of what is left when a task would be a small share of it
	panelsPerCopy  = 8  // of B
	minColPanels   = 8  // of B in a task: with fewer, the cost of copying A shows
	minRowPanels   = 6  // of A in a task: with fewer, the cost of reading B from beyond the L2 cache does
)

// cut returns the tasks for several workers. A task of all columns copies its panels of A once and
// is a share of the remaining rows, so that early tasks are large. Once these shares become small,
// the rest is also divided by columns, into enough tasks that all workers end at about the same
// time even if they are not equally fast. Consecutive tasks read the same columns of B.
func (r *gemmRun) cut(workers int) (tasks []gemmTask) {
	n := min(r.N, r.nCopy)
	lo := 0
	for {
		rows := min(maxPanels, (r.rowPanels-lo)/(2*workers))
		if rows < minRowPanels {
			break
		}
		tasks = append(tasks, gemmTask{lo, lo + rows, 0, n})
		lo += rows
	}
	left := r.rowPanels - lo
	if left == 0 {
		return tasks
	}
	most := min(tasksPerWorker*workers, ceilDiv(ceilDiv(r.M*left, r.rowPanels)*n*min(r.K, r.kBlock), smallTask))
	panels := ceilDiv(n, r.kernels.cols)
	cols := max(1, min(most, panels/minColPanels))
	rows := min(left, max(ceilDiv(left, maxPanels), most/cols))
	for col := range cols {
		for row := range rows {
			tasks = append(tasks, gemmTask{lo + row*left/rows, lo + (row+1)*left/rows,
				col * panels / cols * r.kernels.cols, min(n, (col+1)*panels/cols*r.kernels.cols)})
		}
	}
	return tasks
}

func (r *gemmRun) serial() {
	if r.rowPanels == 0 {
		r.empty()
		return
	}
	if r.dot {
		r.roundA()
		r.computeDots(0, 1, 0)
		return
	}
	for r.j0 = 0; r.j0 < r.N; r.j0 = r.j1 {
		r.j1 = min(r.N, r.j0+r.nCopy)
		for r.k0 = 0; r.k0 < r.K; r.k0 = r.k1 {
			r.k1 = min(r.K, r.k0+r.kBlock)
			if r.packB {
				r.packPanelsB(r.j0, r.j1, 0)
			}
			for lo := 0; lo < r.rowPanels; lo += maxPanels {
				r.compute(gemmTask{lo, min(r.rowPanels, lo+maxPanels), 0, r.j1 - r.j0}, 0)
			}
		}
	}
}

// empty is a product over no steps, or with no elements.
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
		dots := func(task, worker int) { r.computeDots(task, tasks, worker) }
		return func() {
			r.roundA()
			p.Run(tasks, dots)
		}
	}
	pack := func(task, worker int) {
		width := panelsPerCopy * r.kernels.cols
		j := r.j0 + task*width
		r.packPanelsB(j, min(r.j1, j+width), worker)
	}
	r.tasks = r.cut(p.Workers())
	compute := func(task, worker int) { r.compute(r.tasks[task], worker) }
	return func() {
		for r.j0 = 0; r.j0 < r.N; r.j0 = r.j1 {
			r.j1 = min(r.N, r.j0+r.nCopy)
			for r.k0 = 0; r.k0 < r.K; r.k0 = r.k1 {
				r.k1 = min(r.K, r.k0+r.kBlock)
				if r.packB {
					p.Run(ceilDiv(r.j1-r.j0, panelsPerCopy*r.kernels.cols), pack)
				}
				p.Run(len(r.tasks), compute)
			}
		}
	}
}

// packPanelsB copies the panels of B between the columns lo and hi.
func (r *gemmRun) packPanelsB(lo, hi, worker int) {
	width, steps := r.kernels.cols, r.k1-r.k0
	chunk := r.stepsPerCopy(r.TransB)
	for k := 0; k < steps; k += chunk {
		for j := lo; j < hi; j += width {
			panel := r.copyB[(j-r.j0)*r.depth+k/r.kernels.perElement*width:]
			r.packPanelB(panel, j, r.k0+k, min(chunk, steps-k), worker)
		}
	}
}

// packPanelB copies `steps` steps, from step k on, of the panel of B at column j. Missing columns
// are set to zero: they do not reach C, but leftovers could be subnormal, and slow.
func (r *gemmRun) packPanelB(panel []float32, j, k, steps, worker int) {
	width := r.kernels.cols
	cols := min(width, r.N-j)
	floats := r.floats(panel, worker)
	if cols < width {
		clear(floats[:steps*width])
	}
	switch {
	case r.BF16B:
		r.widenB(floats, j, k, cols, steps, worker)
	case r.TransB:
		r.kernels.transpose(floats, width, r.b[j*r.LDB+k:], r.LDB, cols, steps)
	default:
		r.kernels.copyRows(floats, width, r.b[k*r.LDB+j:], r.LDB, steps, cols)
	}
	r.narrow(panel, floats, width, steps)
}

// widenB copies `steps` steps of cols columns of a bfloat16 B to a float32 panel.
func (r *gemmRun) widenB(panel []float32, j, k, cols, steps, worker int) {
	width := r.kernels.cols
	if !r.TransB {
		for s := range steps {
			r.kernels.widen(panel[s*width:][:cols], r.b16[(k+s)*r.LDB+j:])
		}
		return
	}
	rows := r.convert[(2*worker+1)*r.convertSize():][:cols*steps]
	for c := range cols {
		r.kernels.widen(rows[c*steps:][:steps], r.b16[(j+c)*r.LDB+k:])
	}
	r.kernels.transpose(panel, width, rows, steps, cols, steps)
}

// floats is the buffer in which a panel is assembled in float32: the panel itself if it stays
// float32.
func (r *gemmRun) floats(panel []float32, worker int) []float32 {
	if r.kernels.narrow == nil {
		return panel
	}
	return r.convert[2*worker*r.convertSize():][:r.convertSize()]
}

// narrow converts the buffer that floats returned to the panel.
func (r *gemmRun) narrow(panel, floats []float32, width, steps int) {
	if r.kernels.narrow == nil {
		return
	}
	if whole := roundUp(steps, r.kernels.perElement); whole > steps {
		clear(floats[steps*width : whole*width])
	}
	r.kernels.narrow(panel, floats, width, steps)
}

// packPanelsA copies panels [lo, hi) of A: all rows of a panel at one step are adjacent.
func (r *gemmRun) packPanelsA(copyA []float32, lo, hi, worker int) {
	steps := r.k1 - r.k0
	chunk := r.stepsPerCopy(!r.TransA)
	for k := 0; k < steps; k += chunk {
		for i := lo; i < hi; i++ {
			i0, i1 := r.panelA(i)
			rows, n := i1-i0, min(chunk, steps-k)
			panel := r.copyOfA(copyA, i-lo)[k/r.kernels.perElement*rows:]
			floats := r.floats(panel, worker)
			if r.TransA {
				r.kernels.copyRows(floats, rows, r.a[(r.k0+k)*r.LDA+i0:], r.LDA, n, rows)
			} else {
				r.kernels.transpose(floats, rows, r.a[i0*r.LDA+r.k0+k:], r.LDA, rows, n)
			}
			r.narrow(panel, floats, rows, n)
		}
	}
}

// stepsPerCopy is the number of steps of one panel that are copied before the next panel's: all of
// them if the operand's rows run along K, and otherwise a few, because the steps are then far apart
// while neighboring panels share pages and cache lines.
func (r *gemmRun) stepsPerCopy(alongK bool) int {
	switch {
	case !alongK:
		return 16
	case r.convertSize() > 0:
		return convertSteps
	}
	return r.kBlock
}

// copyOfA returns the copy of the i-th panel of A in a task.
func (r *gemmRun) copyOfA(copyA []float32, i int) []float32 {
	return copyA[i*r.kernels.rows*r.depth:][:r.kernels.rows*r.depth]
}

// compute does a task.
func (r *gemmRun) compute(t gemmTask, worker int) {
	lo, hi := t.lo, t.hi
	j0, j1 := r.j0+t.j0, min(r.j1, r.j0+t.j1)
	copyA := r.copiesA[worker*r.workspaceA():][:r.workspaceA()]
	if r.packA {
		r.packPanelsA(copyA, lo, hi, worker)
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

// computeRows computes columns [j, j1) of `rows` rows of C from row i on. With newB, the copy of
// the right edge of B is not yet that of this task.
func (r *gemmRun) computeRows(a []float32, aRow, aK, i, rows, j, j1, worker int, newB bool) {
	steps := ceilDiv(r.k1-r.k0, r.kernels.perElement)
	accumulate := r.Accumulate || r.k0 > 0
	for j < j1 {
		width := r.widthB(j)
		cols := min(width, j1-j)
		var b []float32
		bK := r.kernels.cols
		switch {
		case r.packB:
			b = r.copyB[(j-r.j0)*r.depth:][:bK*steps]
		case cols%r.kernels.lanes != 0:
			b = r.copyB[worker*r.workspaceB():][:bK*steps]
			if newB {
				r.packPanelB(b, j, r.k0, steps, worker)
			}
		default:
			b, bK = r.b[r.k0*r.LDB+j:], r.LDB
		}
		r.kernels.tile(steps, a, aRow, aK, b, bK, r.c[i*r.LDC+j:], r.LDC, rows, cols, accumulate)
		j += width
	}
}

// roundA rounds the few rows of A for dot products that need it.
func (r *gemmRun) roundA() {
	if !r.RoundFactors {
		return
	}
	for i := range r.M {
		r.kernels.round(r.copiesA[i*r.dotStride():][:r.K], r.a[i*r.LDA:][:r.K])
	}
}

// computeDots computes one of `parts` parts of C in tiles of dot products.
func (r *gemmRun) computeDots(part, parts, worker int) {
	i0, i1, j0, j1 := 0, r.M, 0, r.N
	if r.N <= dotMaxN {
		i0, i1 = part*r.M/parts, (part+1)*r.M/parts
	} else {
		groups := ceilDiv(r.N, dotCols)
		j0, j1 = part*groups/parts*dotCols, min(r.N, (part+1)*groups/parts*dotCols)
	}
	a, aRow := r.a, r.LDA
	if r.RoundFactors {
		a, aRow = r.copiesA, r.dotStride()
	}
	for j := j0; j < j1; {
		cols := dotCols
		if j1-j < dotCols {
			cols = 1
		}
		b, bRow := r.b[j*r.LDB:], r.LDB
		if r.RoundFactors {
			b, bRow = r.roundB(j, cols, worker), r.dotStride()
		}
		for i := i0; i < i1; i += r.kernels.dotRows {
			rows := min(r.kernels.dotRows, i1-i)
			r.kernels.dot(r.K, a[i*aRow:], aRow, b, bRow, r.c[i*r.LDC+j:], r.LDC, rows, cols, r.Accumulate)
		}
		j += cols
	}
}

// roundB returns `rows` rows of a transposed B, rounded and dotStride apart.
func (r *gemmRun) roundB(row, rows, worker int) []float32 {
	to := r.convert[worker*dotCols*r.dotStride():][:dotCols*r.dotStride()]
	for i := range rows {
		r.kernels.round(to[i*r.dotStride():][:r.K], r.b[(row+i)*r.LDB:][:r.K])
	}
	return to
}
