package chunk_attention

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// forward binds the kernel. A task is a block of queries of one row; tasks write to disjoint
// memory.
func forward(c *graph.CPUCall) func() {
	a := newAttention(c)
	a.lse = c.Out[1].F32
	task := func(i, worker int) { a.block(&a.workers[worker], i, 0) }
	return func() {
		reversed(a.bias, c.In[3].F32)
		c.Pool.Run(a.tasks, task)
	}
}

// attention is what the tasks of a call share.
type attention struct {
	tokens, chunk, tasks, blocks int
	q, k, v, o                   graph.Buffer
	key, value                   graph.Buffer // the states, in the stateful form
	lse                          []float32    // [B T], not in the stateful form
	bias                         []float32    // [W], reversed
	workers                      []softmax
}

func newAttention(c *graph.CPUCall) *attention {
	d := c.Dims
	a := &attention{
		tokens: d["T"], chunk: d["W"], blocks: blocks(d["T"]), tasks: d["B"] * blocks(d["T"]),
		q: c.In[0], k: c.In[1], v: c.In[2], o: c.Out[0],
		workers: make([]softmax, c.Pool.Workers()),
	}
	cut := cutter(c.Workspace)
	a.bias = cut.next(pad(d["W"]))[:d["W"]]
	m, share := min(block, d["T"]), len(cut)/len(a.workers)
	for i := range a.workers {
		cut := cut[i*share:][:share]
		a.workers[i] = softmax{
			width: d["D"], values: d["C"], chunk: d["W"], scale: float32(1 / math.Sqrt(float64(d["D"]))), bias: a.bias,
			queries: cut.next(m * d["D"]), scores: cut.next(m * d["W"]), lse: cut.next(m),
			scratch: cut.next(forwardScratch(d)),
		}
	}
	return a
}

func forwardWorkspace(d graph.Dims, workers int) int {
	m := min(block, d["T"])
	return pad(d["W"]) + workers*pad(m*(d["D"]+d["W"]+1)+forwardScratch(d))
}

// forwardScratch is the scratch memory that the products of the largest blocks need. Smaller blocks
// need no more.
func forwardScratch(d graph.Dims) int {
	m, n := min(block, d["T"]), min(keyStep, d["W"])
	return max(scoresOf(m, n, d["D"]).Workspace(1), valuesOf(m, n, d["C"]).Workspace(1))
}

// block is task i, in a call before which the text had position tokens. A block is split where a
// chunk ends.
func (a *attention) block(s *softmax, i, position int) {
	b, t := i/a.blocks, i%a.blocks*block
	for end := min(t+block, a.tokens); t < end; {
		slot := (position + t) % a.chunk
		n := min(end-t, a.chunk-slot)
		// The chunk's first tokens may have come before this call.
		row, past := b*a.tokens+t, max(0, slot-t)
		s.begin(at(a.q, row), at(a.o, row), slot, n)
		if past > 0 {
			s.score(at(a.key, b*a.chunk), 0, past)
		}
		s.score(at(a.k, row-slot+past), past, slot+n)
		s.weigh()
		if past > 0 {
			s.add(at(a.value, b*a.chunk), 0, past)
		}
		s.add(at(a.v, row-slot+past), past, slot+n)
		if a.lse != nil {
			copy(a.lse[row:], s.lse[:n])
		}
		t += n
	}
}

// softmax is a worker's attention of some queries of one chunk. They see at most one chunk of keys,
// so their scores are held all at once.
type softmax struct {
	width, values, chunk int
	scale                float32
	bias                 []float32 // [W], reversed
	queries              []float32 // [block D], scaled
	scores               []float32 // [block W], then the weights
	lse                  []float32 // [block]
	scratch              []float32 // of the products

	o    rows
	slot int // of the first query in its chunk
	n    int // queries
}

// begin starts with n queries, the first of which is at this slot of its chunk.
func (s *softmax) begin(q, o rows, slot, n int) {
	s.o, s.slot, s.n = o, slot, n
	for r := range n {
		simd.Scale(s.queries[r*s.width:][:s.width], s.scale, q.from(r).data[:s.width])
		clear(o.from(r).data[:s.values])
	}
}

// score computes the products with the keys in slots [from, to).
func (s *softmax) score(k rows, from, to int) {
	for j := from; j < to; j += keyStep {
		g := scoresOf(s.n, min(keyStep, to-j), s.width)
		g.LDA, g.LDB, g.LDC = s.width, k.stride, s.chunk
		g.Serial(s.queries, k.from(j-from).data, s.scores[j:], s.scratch)
	}
}

// weigh turns the products into weights, 0 for the keys that a query doesn't see.
func (s *softmax) weigh() {
	for r := range s.n {
		row := s.scores[r*s.chunk:][:s.slot+s.n]
		seen := row[:s.slot+r+1]
		simd.Add(seen, seen, s.bias[s.chunk-len(seen):])
		greatest := simd.Max(seen)
		sum := simd.SoftmaxExp(seen, seen, greatest)
		simd.Scale(seen, 1/sum, seen)
		clear(row[len(seen):])
		s.lse[r] = greatest + float32(math.Log(float64(sum)))
	}
}

// add adds the values in slots [from, to) to o, weighted.
func (s *softmax) add(v rows, from, to int) {
	for j := from; j < to; j += keyStep {
		g := valuesOf(s.n, min(keyStep, to-j), s.values)
		g.LDA, g.LDB, g.LDC = s.chunk, v.stride, s.o.stride
		g.Serial(s.scores[j:], v.from(j-from).data, s.o.data, s.scratch)
	}
}

// scoresOf is m queries times n keys; the leading dimensions of the operands are set where they are
// known.
func scoresOf(m, n, width int) simd.Gemm {
	return simd.Gemm{M: m, N: n, K: width, TransB: true}
}

// valuesOf is m rows of weights times n values, added to m rows of o.
func valuesOf(m, n, width int) simd.Gemm {
	return simd.Gemm{M: m, N: width, K: n, Accumulate: true}
}
