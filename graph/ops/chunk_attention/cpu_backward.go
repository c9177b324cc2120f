package chunk_attention

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// backward binds the backward kernel. The queries and the keys of a chunk are divided into blocks.
// A task is one block of keys with one block of queries, and adds to dq, dk, dv and the key block's
// part of dbias. One diagonal of blocks runs after another. The tasks of a diagonal have no block
// in common, so they can run in parallel, and each sum adds its terms in the order of the
// diagonals, whatever the number of workers.
func backward(c *graph.CPUCall) func() {
	g := newGrads(c)
	tokens := min(g.chunk, g.tokens) // of the longest chunk
	chunks, diagonals := (g.tokens+g.chunk-1)/g.chunk, blocks(tokens)
	prepare := func(i, _ int) {
		for r := i * block; r < min((i+1)*block, g.q.Rows); r++ {
			g.delta[r] = simd.Dot(g.do.Row(r), g.o.Row(r))
		}
	}
	diagonal := 0
	task := func(i, worker int) {
		n := diagonals - diagonal // pairs of blocks in a chunk
		b, chunk, pair := i/(chunks*n), i/n%chunks, i%n
		first := chunk * g.chunk
		keys, queries := pair*block, (pair+diagonal)*block
		if end := min(g.chunk, g.tokens-first); queries < end {
			g.pair(&g.workers[worker], b*g.tokens+first, keys, queries, end, g.parts[((b*chunks+chunk)*diagonals+pair)*g.chunk:][:g.chunk])
		}
	}
	return func() {
		reversed(g.bias, c.In[3].F32)
		clear(g.parts)
		c.Pool.Run(blocks(g.q.Rows), prepare)
		for diagonal = range diagonals {
			c.Pool.Run(c.Dims["B"]*chunks*(diagonals-diagonal), task)
		}
		sum := g.parts[:g.chunk]
		for i := g.chunk; i < len(g.parts); i += g.chunk {
			simd.Add(sum, sum, g.parts[i:i+g.chunk])
		}
		reversed(c.Out[3].F32, sum)
	}
}

// grads is what all tasks share.
type grads struct {
	tokens, chunk, width, values int
	scale                        float32
	q, k, v, o, do, dq, dk, dv   graph.Buffer
	lse, delta                   []float32 // [B T]
	bias                         []float32 // [W], reversed
	parts                        []float32 // of dbias: [W] for each block of keys, reversed
	workers                      []gradWorker
}

// gradWorker is a worker's scratch memory.
type gradWorker struct {
	queries, keys []float32 // [block D], scaled
	p, ds         []float32 // [block block], one row per query
	scratch       []float32 // of the products
}

func partsOf(d graph.Dims) int {
	chunks := (d["T"] + d["W"] - 1) / d["W"]
	return d["B"] * chunks * blocks(min(d["T"], d["W"])) * d["W"]
}

func backwardWorkspace(d graph.Dims, workers int) int {
	n := min(block, d["T"], d["W"])
	return pad(d["B"]*d["T"]) + pad(d["W"]) + pad(partsOf(d)) + workers*pad(2*n*(d["D"]+n)+backwardScratch(d))
}

// backwardScratch is the scratch memory that the products of the largest blocks need. Smaller
// blocks need no more.
func backwardScratch(d graph.Dims) int {
	n := min(block, d["T"], d["W"])
	return max(
		moreScoresOf(n, n, d["D"]).Workspace(1),
		moreScoresOf(n, n, d["C"]).Workspace(1),
		valuesOf(n, n, d["D"]).Workspace(1),
		keyGradOf(n, n, d["D"]).Workspace(1),
		keyGradOf(n, n, d["C"]).Workspace(1),
	)
}

// moreScoresOf is m queries times n keys, added to the result.
func moreScoresOf(m, n, width int) simd.Gemm {
	g := scoresOf(m, n, width)
	g.Accumulate = true
	return g
}

// keyGradOf is the sum over m queries for n keys.
func keyGradOf(n, m, width int) simd.Gemm {
	return simd.Gemm{M: n, N: width, K: m, TransA: true, Accumulate: true}
}

func newGrads(c *graph.CPUCall) *grads {
	d, cut := c.Dims, cutter(c.Workspace)
	g := &grads{
		tokens: d["T"], chunk: d["W"], width: d["D"], values: d["C"], scale: float32(1 / math.Sqrt(float64(d["D"]))),
		q: c.In[0], k: c.In[1], v: c.In[2], o: c.In[4], lse: c.In[5].F32, do: c.In[6],
		dq: c.Out[0], dk: c.Out[1], dv: c.Out[2],
		delta: cut.next(pad(d["B"] * d["T"])), bias: cut.next(pad(d["W"]))[:d["W"]],
		parts:   cut.next(pad(partsOf(d)))[:partsOf(d)],
		workers: make([]gradWorker, c.Pool.Workers()),
	}
	n, share := min(block, d["T"], d["W"]), len(cut)/len(g.workers)
	for i := range g.workers {
		cut := cut[i*share:][:share]
		g.workers[i] = gradWorker{
			queries: cut.next(n * d["D"]), keys: cut.next(n * d["D"]), p: cut.next(n * n), ds: cut.next(n * n),
			scratch: cut.next(backwardScratch(d)),
		}
	}
	return g
}

// pair adds the gradients between a block of keys and a block of queries of one chunk. The chunk
// starts at row first and has end tokens; keys and queries are the blocks' first tokens in it.
func (g *grads) pair(w *gradWorker, first, keys, queries, end int, dbias []float32) {
	n, m := min(block, end-keys), min(block, end-queries)
	k, v, dk, dv := at(g.k, first+keys), at(g.v, first+keys), at(g.dk, first+keys), at(g.dv, first+keys)
	q, do, dq := at(g.q, first+queries), at(g.do, first+queries), at(g.dq, first+queries)
	if keys == queries { // the first diagonal: each block of keys and of queries once
		for i := first + keys; i < first+keys+n; i++ {
			clear(g.dq.Row(i))
			clear(g.dk.Row(i))
			clear(g.dv.Row(i))
		}
	}
	for j := range n {
		simd.Scale(w.keys[j*g.width:][:g.width], g.scale, k.from(j).data[:g.width])
	}

	// The products' sums start from the biases and from -delta.
	for r := range m {
		simd.Scale(w.queries[r*g.width:][:g.width], g.scale, q.from(r).data[:g.width])
		p, ds := w.p[r*n:][:n], w.ds[r*n:][:n]
		seen := min(n, queries+r-keys+1)
		copy(p[:seen], g.biasesOf(g.bias, queries+r-keys))
		clear(p[seen:])
		for j := range ds {
			ds[j] = -g.delta[first+queries+r]
		}
	}
	s := moreScoresOf(m, n, g.width)
	s.LDA, s.LDB, s.LDC = q.stride, g.width, n
	s.Serial(q.data, w.keys, w.p, w.scratch)
	s = moreScoresOf(m, n, g.values)
	s.LDA, s.LDB, s.LDC = do.stride, v.stride, n
	s.Serial(do.data, v.data, w.ds, w.scratch)
	for r := range m {
		p, ds := w.p[r*n:][:n], w.ds[r*n:][:n]
		seen := min(n, queries+r-keys+1)
		simd.SoftmaxExp(p[:seen], p[:seen], g.lse[first+queries+r])
		simd.Mul(ds[:seen], ds[:seen], p[:seen])
		clear(p[seen:])
		clear(ds[seen:])
		part := g.biasesOf(dbias, queries+r-keys)[:seen]
		simd.Add(part, part, ds[:seen])
	}

	s = keyGradOf(n, m, g.values)
	s.LDA, s.LDB, s.LDC = n, do.stride, dv.stride
	s.Serial(w.p, do.data, dv.data, w.scratch)
	s = keyGradOf(n, m, g.width)
	s.LDA, s.LDB, s.LDC = n, g.width, dk.stride
	s.Serial(w.ds, w.queries, dk.data, w.scratch)
	s = valuesOf(m, n, g.width)
	s.LDA, s.LDB, s.LDC = n, g.width, dq.stride
	s.Serial(w.ds, w.keys, dq.data, w.scratch)
}

// biasesOf is the reversed biases of consecutive keys, the first of which is at this distance from
// the query.
func (g *grads) biasesOf(reversed []float32, distance int) []float32 {
	return reversed[g.chunk-1-distance:]
}
