package attention

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

const (
	// queryBlock is the number of queries per task: enough of them share a copy of each key block
	// to make the cost of copying small.
	queryBlock = 256
	// keyBlock is the number of keys whose logits are held at once, in the L2 cache. The rows are
	// long enough for the vector functions.
	keyBlock = 256
	// keyStep is the number of keys per product. A query block's products skip the queries that see
	// none of the keys, so with short steps little work is wasted where a step is only partly
	// visible.
	keyStep = 64
)

// cpu binds the forward kernel. A task is a block of queries in one head of one row; no two tasks
// write the same data.
func (c Config) cpu(call *graph.CPUCall) func() {
	q, k, v, o, lse, d := call.In[0], call.In[1], call.In[2], call.Out[0], call.Out[1], call.Dims
	tokens, window, group := d["T"], c.window(d["T"]), d["H"]/d["K"]
	workers := newSoftmaxes(call, window)
	tasks := newQueryTasks(d)
	task := func(i, worker int) {
		b, h, first, n := tasks.at(i)
		s, row := &workers[worker], b*tokens+first
		s.begin(at(q, d, row, h), at(o, d, row, h), first, n)
		for j := max(0, first-window+1); j < first+n; j += keyBlock {
			row := b*tokens + j
			s.attend(at(k, d, row, h/group), at(v, d, row, h/group), j, min(keyBlock, first+n-j))
		}
		s.finish()
		for r, x := range s.lse[:n] {
			lse.Row(row + r)[h] = x
		}
	}
	return func() { call.Pool.Run(tasks.number, task) }
}

// rows is consecutive rows of some columns; row i starts at data[i*stride].
type rows struct {
	data   []float32
	stride int
}

func (r rows) from(i int) rows { return rows{r.data[i*r.stride:], r.stride} }

// at returns head h of x from row i on.
func at(x graph.Buffer, d graph.Dims, i, h int) rows {
	return rows{x.F32[i*x.Stride+h*d["D"]:], x.Stride}
}

// queryTasks numbers the blocks of queries of all heads and rows, the last blocks first: without a
// window they are the longest tasks and must not run at the end.
type queryTasks struct {
	tokens, heads, sequences, blocks, number int
}

func newQueryTasks(d graph.Dims) queryTasks {
	t := queryTasks{tokens: d["T"], heads: d["H"], sequences: d["B"] * d["H"]}
	t.blocks = (t.tokens + queryBlock - 1) / queryBlock
	t.number = t.blocks * t.sequences
	return t
}

// at returns task i: n queries starting at token first, in head h of row b.
func (t queryTasks) at(i int) (b, h, first, n int) {
	first = (t.blocks - 1 - i/t.sequences) * queryBlock
	return i % t.sequences / t.heads, i % t.heads, first, min(queryBlock, t.tokens-first)
}

// softmax is one worker's online softmax over a block of queries. After each block of keys,
// greatest is the largest logit so far, o the sum of the values weighted by exp(logit - greatest),
// and sum the sum of the weights.
type softmax struct {
	channels, window int
	scale            float32

	queries  []float32 // [queryBlock D], scaled
	scores   []float32 // [queryBlock keyBlock]
	greatest []float32 // [queryBlock]
	sum      []float32 // [queryBlock]
	decay    []float32 // [queryBlock]: the last factor applied to sum and o
	lse      []float32 // [queryBlock]: written by finish
	scratch  []float32 // for the products

	o        rows
	position int // of the first query
	n        int // queries
}

func forwardWorkspace(d graph.Dims, workers int) int {
	m := min(queryBlock, d["T"])
	return workers * pad(m*(d["D"]+keyBlock+4)+forwardScratch(d))
}

// forwardScratch is the scratch that the products of the largest blocks need. Smaller blocks need
// no more.
func forwardScratch(d graph.Dims) int {
	m := min(queryBlock, d["T"])
	return max(scoresOf(m, keyStep, d["D"]).Workspace(1), valuesOf(m, keyStep, d["D"]).Workspace(1))
}

// scoresOf multiplies m queries by n keys; the leading dimensions of the operands are set by the
// caller.
func scoresOf(m, n, channels int) simd.Gemm {
	return simd.Gemm{M: m, N: n, K: channels, TransB: true}
}

// valuesOf multiplies m rows of weights by n values and adds the product to m rows of o.
func valuesOf(m, n, channels int) simd.Gemm {
	return simd.Gemm{M: m, N: channels, K: n, Accumulate: true}
}

// pad keeps the workers' parts on separate cache lines.
func pad(n int) int { return (n + 15) &^ 15 }

func newSoftmaxes(call *graph.CPUCall, window int) []softmax {
	d := call.Dims
	m, list := min(queryBlock, d["T"]), make([]softmax, call.Pool.Workers())
	share := len(call.Workspace) / len(list)
	for i := range list {
		cut := cutter(call.Workspace[i*share:][:share])
		list[i] = softmax{
			channels: d["D"], window: window, scale: float32(1 / math.Sqrt(float64(d["D"]))),
			queries: cut.next(m * d["D"]), scores: cut.next(m * keyBlock),
			greatest: cut.next(m), sum: cut.next(m), decay: cut.next(m), lse: cut.next(m),
			scratch: cut.next(forwardScratch(d)),
		}
	}
	return list
}

// cutter hands out parts of a workspace.
type cutter []float32

func (c *cutter) next(n int) []float32 {
	part := (*c)[:n:n]
	*c = (*c)[n:]
	return part
}

// begin starts a block of n queries, the first of them at the given position. o may overlap q.
func (s *softmax) begin(q, o rows, position, n int) {
	s.o, s.position, s.n = o, position, n
	for r := range n {
		simd.Scale(s.queries[r*s.channels:][:s.channels], s.scale, q.from(r).data[:s.channels])
		clear(s.o.from(r).data[:s.channels])
		s.greatest[r], s.sum[r] = float32(math.Inf(-1)), 0
	}
}

// attend processes n <= keyBlock keys and their values, the first of them at the given position.
func (s *softmax) attend(k, v rows, position, n int) {
	for j := 0; j < n; j += keyStep {
		s.score(k.from(j), position+j, j, min(keyStep, n-j))
	}
	s.weigh(position, n)
	for j := 0; j < n; j += keyStep {
		s.add(v.from(j), position+j, j, min(keyStep, n-j))
	}
}

// seeing returns the range [lo, hi) of queries that see any of n keys starting at the given
// position.
func (s *softmax) seeing(position, n int) (lo, hi int) {
	return max(0, position-s.position), min(s.n, position+n-1+s.window-s.position)
}

// few is the largest number of queries for which dot products are faster than the matrix product,
// which copies the keys first.
const few = 4

// score writes the logits of n keys to columns j, j+1, ... of scores.
func (s *softmax) score(k rows, position, j, n int) {
	lo, hi := s.seeing(position, n)
	if hi-lo > few {
		g := scoresOf(hi-lo, n, s.channels)
		g.LDA, g.LDB, g.LDC = s.channels, k.stride, keyBlock
		g.Serial(s.queries[lo*s.channels:], k.data, s.scores[lo*keyBlock+j:], s.scratch)
		return
	}
	for i := range n {
		key := k.from(i).data[:s.channels]
		for r := lo; r < hi; r++ {
			s.scores[r*keyBlock+j+i] = simd.Dot(s.queries[r*s.channels:][:s.channels], key)
		}
	}
}

// weigh replaces the logits of n keys by their weights, 0 where a query doesn't see a key, and
// rescales the earlier sums to the new maximum.
func (s *softmax) weigh(position, n int) {
	lo, hi := s.seeing(position, n)
	for r := lo; r < hi; r++ {
		from, to := s.visible(r, position, n)
		m := max(s.greatest[r], simd.Max(s.scores[r*keyBlock+from:r*keyBlock+to]))
		s.decay[r], s.greatest[r] = s.greatest[r]-m, m
	}
	if lo < hi {
		simd.Exp(s.decay[lo:hi], s.decay[lo:hi])
	}
	for r := lo; r < hi; r++ {
		from, to := s.visible(r, position, n)
		row := s.scores[r*keyBlock:][:n]
		clear(row[:from])
		clear(row[to:])
		s.sum[r] = s.sum[r]*s.decay[r] + simd.SoftmaxExp(row[from:to], row[from:to], s.greatest[r])
		if s.decay[r] != 1 {
			o := s.o.from(r).data[:s.channels]
			simd.Scale(o, s.decay[r], o)
		}
	}
}

// visible returns the range of the n keys starting at the given position that query r sees.
func (s *softmax) visible(r, position, n int) (from, to int) {
	offset := s.position + r - position
	return max(0, offset-s.window+1), min(n, offset+1)
}

// add adds to o the values of n keys, weighted by columns j, j+1, ... of scores.
func (s *softmax) add(v rows, position, j, n int) {
	lo, hi := s.seeing(position, n)
	if lo >= hi {
		return
	}
	g := valuesOf(hi-lo, n, s.channels)
	g.LDA, g.LDB, g.LDC = keyBlock, v.stride, s.o.stride
	g.Serial(s.scores[lo*keyBlock+j:], v.data, s.o.from(lo).data, s.scratch)
}

// finish divides by the sums and stores the log-sum-exp of the logits in lse.
func (s *softmax) finish() {
	for r := range s.n {
		o := s.o.from(r).data[:s.channels]
		simd.Scale(o, 1/s.sum[r], o)
		s.lse[r] = s.greatest[r] + float32(math.Log(float64(s.sum[r])))
	}
}
