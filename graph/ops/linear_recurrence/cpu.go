package linear_recurrence

import (
	"slices"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

const (
	// chunkTokens is C, the number of tokens whose scores are computed at once. More tokens make
	// larger products, and more work between tokens in comparison with that on the state.
	chunkTokens = 64
	// valueSlice and keySlice are the columns and the rows of a state in a task: narrow enough that
	// all workers have one even in a short batch, and that the slice stays in the L1 cache.
	valueSlice = 64
	keySlice   = 64
	// sequencesAtOnce bounds the workspace: the number of heads of rows whose chunks are stored at
	// once.
	sequencesAtOnce = 8
)

// shape is the op's sizes B, T, H, Dk and Dv.
type shape struct{ rows, tokens, heads, keys, values int }

func shapeOf(d graph.Dims) shape { return shape{d["B"], d["T"], d["H"], d["Dk"], d["Dv"]} }

func (s shape) sequences() int { return s.rows * s.heads }
func (s shape) chunks() int    { return parts(s.tokens, chunkTokens) }
func (s shape) longest() int   { return min(chunkTokens, s.tokens) }

// parts is the number of slices of this width that n columns have.
func parts(n, width int) int { return (n + width - 1) / width }

// matrix is some columns of the rows of a tensor: row i starts at data[i*stride].
type matrix struct {
	data   []float32
	stride int
}

func (m matrix) row(i, width int) []float32 { return m.data[i*m.stride:][:width:width] }

// from is the matrix without the rows and columns before (row, column).
func (m matrix) from(row, column int) matrix { return matrix{m.data[row*m.stride+column:], m.stride} }

// headOf is head h, of this width, of an activation from row first on.
func headOf(x graph.Buffer, first, h, width int) matrix {
	return matrix{x.F32, x.Stride}.from(first, h*width)
}

// span is a chunk of n <= C tokens of a head: its effect on the state, and between its tokens.
type span struct {
	first, n, head int       // rows [first, first+n) of [B T]
	scores         matrix    // [n n]: what token t (row) reads from what token s wrote; 0 for s > t
	reads          matrix    // [n Dk]: queries / sqrt(Dk), decayed from the span's start
	writes         matrix    // [n Dk]: keys, decayed to the span's end
	total          []float32 // [Dk]: the decay from start to end
	through        []float32 // [Dk]: the gradient of total's logarithm, in the backward pass
}

// spanSize is the size of a span in the workspace.
func (s shape) spanSize() int { return s.longest()*(s.longest()+2*s.keys) + 2*s.keys }

// spans allocates the spans of the sequences being processed.
type spans struct {
	shape
	memory []float32
	before int // sequences that are done
}

func (s shape) atOnce() int { return min(sequencesAtOnce, s.sequences()) }

func (s *spans) at(sequence, chunk int) span {
	m := cutter(s.memory[(sequence*s.chunks()+chunk)*s.spanSize():][:s.spanSize()])
	b, h := (s.before+sequence)/s.heads, (s.before+sequence)%s.heads
	n := s.longest()
	return span{
		first: b*s.tokens + chunk*chunkTokens, n: min(chunkTokens, s.tokens-chunk*chunkTokens), head: h,
		scores: matrix{m.next(n * n), n}, reads: matrix{m.next(n * s.keys), s.keys}, writes: matrix{m.next(n * s.keys), s.keys},
		total: m.next(s.keys), through: m.next(s.keys),
	}
}

// each calls pass for the sequences, as many at a time as fit in memory.
func (s *spans) each(pass func(sequences int)) {
	for s.before = 0; s.before < s.sequences(); s.before += s.atOnce() {
		pass(min(s.atOnce(), s.sequences()-s.before))
	}
}

// kernel is what the forward and the backward pass share.
type kernel struct {
	spans
	decay
	q, k, v graph.Buffer
	workers []worker
}

// worker is a worker's scratch memory.
type worker struct {
	scratch
	states []float32
}

// newKernel binds a call whose workers need this much memory for states. gates are g and, in the
// backward pass, dg.
func (f *form) newKernel(c *graph.CPUCall, states int, gates ...graph.Buffer) kernel {
	s := shapeOf(c.Dims)
	k := kernel{spans: spans{shape: s}, decay: f.newDecay(s, gates), q: c.In[0], k: c.In[1], v: c.In[2]}
	m := cutter(c.Workspace)
	for range c.Pool.Workers() {
		k.workers = append(k.workers, worker{newScratch(s, &m), m.next(pad(states))})
	}
	k.memory = m
	return k
}

func (s shape) workspace(workers, states int) int {
	return workers*(s.scratchSize()+pad(states)) + s.atOnce()*s.chunks()*s.spanSize()
}

// gates is g among a call's inputs, if it is one of them.
func (f *form) gates(in []graph.Buffer) []graph.Buffer {
	if f.fixed() {
		return nil
	}
	return slices.Clip(in[3:4])
}

// prepare is the task of one span: its effect on the state, and its scores.
func (k *kernel) prepare(task, worker int) {
	s := k.at(task/k.chunks(), task%k.chunks())
	k.decay.prepare(&k.workers[worker].scratch, s, k.queries(s), k.keysOf(s))
}

func (k *kernel) queries(s span) matrix { return headOf(k.q, s.first, s.head, k.keys) }
func (k *kernel) keysOf(s span) matrix  { return headOf(k.k, s.first, s.head, k.keys) }

// fade multiplies the rows of a slice of a state by their decays.
func fade(to, from matrix, decays []float32, width int) {
	for i, a := range decays {
		simd.Scale(to.row(i, width), a, from.row(i, width))
	}
}

// cutter allocates parts of a workspace.
type cutter []float32

func (c *cutter) next(n int) []float32 {
	part := (*c)[:n:n]
	*c = (*c)[n:]
	return part
}

// pad keeps the workers' parts on separate cache lines.
func pad(n int) int { return (n + 15) &^ 15 }

// product is C[m n] = op(A)[m k] op(B)[k n] with its scratch; add makes it C +=.
type product struct {
	a, b    operand
	c       matrix
	m, n, k int
	add     bool
}

// operand is an input of a product; if transposed, its rows are the stored columns.
type operand struct {
	matrix
	transposed bool
}

func plain(m matrix) operand      { return operand{m, false} }
func transposed(m matrix) operand { return operand{m, true} }

func (p product) gemm() simd.Gemm {
	return simd.Gemm{M: p.m, N: p.n, K: p.k, TransA: p.a.transposed, TransB: p.b.transposed,
		LDA: p.a.stride, LDB: p.b.stride, LDC: p.c.stride, Accumulate: p.add}
}

func (p product) run(scratch []float32) { p.gemm().Serial(p.a.data, p.b.data, p.c.data, scratch) }

// productScratch is enough for all products: each has the sizes of tokens, keys and values, or of
// slices of these, in some order.
func (s shape) productScratch() int {
	n, most := s.longest(), 0
	for _, g := range []simd.Gemm{
		{M: n, N: n, K: s.keys, TransB: true},
		{M: n, N: n, K: s.values, TransB: true},
		{M: n, N: s.keys, K: n},
		{M: n, N: s.keys, K: n, TransA: true},
		{M: n, N: valueSlice, K: n},
		{M: n, N: valueSlice, K: n, TransA: true},
		{M: n, N: valueSlice, K: s.keys},
		{M: s.keys, N: valueSlice, K: n, TransA: true},
		{M: keySlice, N: s.values, K: n, TransA: true},
		{M: n, N: keySlice, K: s.values, TransB: true},
	} {
		most = max(most, g.Workspace(1))
	}
	return most
}
