package simd

// gemmKernels are the inner loops of one level. A tile is the part of C whose sums fit in
// registers.
type gemmKernels struct {
	lanes    int // in a vector
	rows     int // of the largest tile
	cols     int // of the largest tile
	wideRows int // a product of at most this many rows has tiles of up to wideCols columns
	wideCols int
	kBlock   int // steps over K whose panel of B fits in the L1 cache

	// perElement is the number of steps over K per element of a panel: 1, or 2 for pairs of
	// bfloat16.
	perElement int
	// narrow converts a float32 panel of steps x width numbers to bfloat16. It may read further
	// numbers up to a multiple of perElement steps. nil: products take float32.
	narrow func(dst, src []float32, width, steps int)
	// round rounds float32 numbers to bfloat16, if narrow is not nil.
	round func(dst, src []float32)
	// widen converts bfloat16 numbers to float32.
	widen func(dst []float32, src []uint16)

	// tile computes rows x cols elements of C over k steps: row r of A at step p is a[r*aRow +
	// p*aK], and column j of B is b[p*bK + j]. It reads B in whole vectors, and C only with
	// accumulate.
	tile func(k int, a []float32, aRow, aK int, b []float32, bK int, c []float32, cRow, rows, cols int, accumulate bool)
	// dot computes rows x cols elements of C from whole rows of A and B, both of k elements: up to dotRows
	// rows, and 1 or dotCols columns.
	dot     func(k int, a []float32, aRow int, b []float32, bRow int, c []float32, cRow, rows, cols int, accumulate bool)
	dotRows int

	// copyRows copies src, [rows cols] with rows srcRow apart, to dst; transpose writes its rows as
	// columns.
	copyRows  func(dst []float32, dstRow int, src []float32, srcRow, rows, cols int)
	transpose func(dst []float32, dstRow int, src []float32, srcRow, rows, cols int)
}

// gemmPlan is how a product is divided. Blocks of K are the outermost division. Within one, B is
// copied into panels as wide as a tile, and A into panels as high as a tile, each contiguous in the
// order in which tiles read it. A panel of A stays in the L1 cache while a block of panels of B
// streams from the L2 cache, and tiles follow each other along the rows of C. After K. Goto and R.
// van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008.
type gemmPlan struct {
	Gemm
	kernels *gemmKernels

	kBlock    int // steps over K in a block; the last one may be shorter
	depth     int // elements of a panel for a block's steps
	nCopy     int // columns of B that are copied at once
	nBlock    int // columns of B that stay in the L2 cache
	rowPanels int // panels of A: heights differ by at most one
	packA     bool
	packB     bool
	dot       bool // rows of A times rows of B as they are stored; K is not divided
}

const (
	cacheCols = 512  // of B: 768 KiB with 384 steps of K
	copyCols  = 4096 // of B: 6 MiB with 384 steps of K, which bounds the workspace
	maxPanels = 16   // of A in a task: 336 KiB with 384 steps of K and 14 rows
	lineWidth = 16   // elements in a cache line

	dotCols = 4  // of a tile of dot products
	dotMaxM = 64 // up to here copying B costs more than adding the lanes of every element's sum
	dotMaxN = 4  // and copying A

	convertSteps = 64 // over K that are converted at once, through the L1 cache
)

// fewPanels is the largest number of panels of the other operand with which an operand is still
// read in place: copying it would cost more than it saves. If A is stored transposed, reading it in
// place pays only for fewer panels and for rows of at most nearSteps elements, so that several
// steps share a page.
const (
	fewPanels = 16
	nearSteps = 256
)

func (g Gemm) plan() gemmPlan {
	k := kernelsOf(Active())
	if g.RoundFactors {
		k = roundingKernelsOf(Active())
	}
	p := gemmPlan{Gemm: g, kernels: k}
	if g.M <= 0 || g.N <= 0 || g.K <= 0 {
		return p
	}
	p.dot = !g.BF16B && g.TransB && !g.TransA && (g.M <= dotMaxM || g.N <= dotMaxN && !g.RoundFactors) && g.K >= 8*min(g.M, g.N)
	p.rowPanels = ceilDiv(g.M, k.rows)
	colPanels := ceilDiv(g.N, k.cols)
	p.packA = g.RoundFactors || colPanels > fewPanels || g.TransA && (colPanels > 2 || g.LDA > nearSteps)
	p.packB = g.RoundFactors || g.BF16B || g.TransB || p.rowPanels > fewPanels
	p.kBlock = evenBlock(g.K, k.kBlock, 8)
	p.depth = ceilDiv(p.kBlock, k.perElement)
	p.nCopy = evenBlock(g.N, copyCols, k.cols)
	p.nBlock = evenBlock(p.nCopy, cacheCols, k.cols)
	return p
}

// evenBlock divides n into as few blocks of at most limit as possible and returns their length, a
// multiple of unit, so that no block is much shorter than the others.
func evenBlock(n, limit, unit int) int {
	return roundUp(ceilDiv(n, ceilDiv(n, limit)), unit)
}

func ceilDiv(n, d int) int  { return (n + d - 1) / d }
func roundUp(n, to int) int { return ceilDiv(n, to) * to }

// panelA returns the rows [lo, hi) of a panel of A.
func (p *gemmPlan) panelA(i int) (lo, hi int) {
	return i * p.M / p.rowPanels, (i + 1) * p.M / p.rowPanels
}

// widthB returns the width of the panel of B that starts at column j.
func (p *gemmPlan) widthB(j int) int {
	if p.M <= p.kernels.wideRows && !p.packB && p.N-j >= p.kernels.wideCols {
		return p.kernels.wideCols
	}
	return min(p.kernels.cols, p.N-j)
}

// workspaceA is the size of one worker's copy of the panels of A in a task.
func (p *gemmPlan) workspaceA() int {
	if !p.packA {
		return 0
	}
	return min(p.rowPanels, maxPanels) * p.kernels.rows * p.depth
}

// workspaceB is the size of the copy of B that all workers share or, if B is not copied, of one
// worker's copy of the panel at the right edge, whose rows may not fill a vector.
func (p *gemmPlan) workspaceB() int {
	if !p.packB {
		return p.kernels.cols * p.depth
	}
	return p.nCopy * p.depth
}

// convertSize is the size of each of the two buffers of a worker: one for part of a panel in
// float32, one for part of B before it is transposed.
func (p *gemmPlan) convertSize() int {
	if !p.RoundFactors && !p.BF16B {
		return 0
	}
	return convertSteps * max(p.kernels.rows, p.kernels.cols)
}

// dotStride is the distance between rounded rows of dot products.
func (p *gemmPlan) dotStride() int { return roundUp(p.K, lineWidth) }

func (p *gemmPlan) workspace(workers int) int {
	switch {
	case p.rowPanels == 0 || p.dot && !p.RoundFactors:
		return 0
	case p.dot:
		return lineWidth + (p.M+workers*dotCols)*p.dotStride()
	}
	n := lineWidth + workers*(p.workspaceA()+2*p.convertSize())
	if p.packB {
		return n + p.workspaceB()
	}
	return n + workers*p.workspaceB()
}
