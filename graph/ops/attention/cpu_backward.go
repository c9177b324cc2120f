package attention

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

const (
	// gradBlock is the number of queries, and of keys, per task.
	gradBlock = 256
	// gradQueries is the number of a task's queries that are processed at once.
	gradQueries = 64
)

// backwardCPU binds the backward kernel. Both queries and keys are cut into blocks. A task handles
// one block of keys with one block of queries, for all query heads that share the keys, and adds to
// dq, dk and dv. Tasks run one diagonal of blocks after another. The tasks of a diagonal share no
// block of queries and no block of keys, so they can run in parallel, and each sum takes its terms
// in the order of the diagonals, whatever the number of workers. Every product is computed once,
// without atomics or partial sums.
func (c Config) backwardCPU(call *graph.CPUCall) func() {
	d := call.Dims
	g := newGrads(call, c.window(d["T"]))
	workers := newGradWorkers(call)
	rowsTask := func(i, _ int) { g.prepare(i*gradBlock, min((i+1)*gradBlock, d["B"]*d["T"])) }
	blocks := (d["T"] + gradBlock - 1) / gradBlock
	sequences := d["B"] * d["K"]
	// On diagonal n the nearest query and key are (n-1)*gradBlock + 1 tokens apart, and a query
	// sees keys less than window tokens away.
	diagonals := min(blocks, (g.window+gradBlock-2)/gradBlock+1)
	diagonal := 0
	task := func(i, worker int) {
		block, sequence := i/sequences, i%sequences
		g.pair(&workers[worker], sequence/d["K"], sequence%d["K"], block*gradBlock, (block+diagonal)*gradBlock)
	}
	return func() {
		call.Pool.Run((d["B"]*d["T"]+gradBlock-1)/gradBlock, rowsTask)
		for diagonal = range diagonals {
			call.Pool.Run((blocks-diagonal)*sequences, task)
		}
	}
}

// grads is the data that all tasks share.
type grads struct {
	d                               graph.Dims
	window, tokens, channels, heads int
	group                           int // query heads that share a key
	scale                           float32
	q, k, v, o, lse, do, dq, dk, dv graph.Buffer
	negativeLSE, negativeDelta      []float32 // [B H T]; delta is scaled
}

// gradWorker is a worker's scratch.
type gradWorker struct {
	keys, values []float32 // [gradBlock D], scaled
	p, ds        []float32 // [gradBlock gradQueries], one row per key
	scratch      []float32 // for the products
}

func backwardWorkspace(d graph.Dims, workers int) int {
	n := min(gradBlock, d["T"])
	return 2*d["B"]*d["H"]*d["T"] + workers*pad(2*n*(d["D"]+gradQueries)+backwardScratch(d))
}

// backwardScratch is the scratch that the products of the largest blocks need. Smaller blocks need
// no more.
func backwardScratch(d graph.Dims) int {
	n := min(gradBlock, d["T"])
	return max(
		transposedScoresOf(n, gradQueries, d["D"]).Workspace(1),
		keyGradOf(n, gradQueries, d["D"]).Workspace(1),
		queryGradOf(n, gradQueries, d["D"]).Workspace(1),
	)
}

// transposedScoresOf multiplies n keys by m queries and adds the product to what is there.
func transposedScoresOf(n, m, channels int) simd.Gemm {
	return simd.Gemm{M: n, N: m, K: channels, TransB: true, Accumulate: true}
}

// keyGradOf sums over m queries, for n keys.
func keyGradOf(n, m, channels int) simd.Gemm {
	return simd.Gemm{M: n, N: channels, K: m, Accumulate: true}
}

// queryGradOf sums over n keys, for m queries.
func queryGradOf(n, m, channels int) simd.Gemm {
	return simd.Gemm{M: m, N: channels, K: n, TransA: true, Accumulate: true}
}

func newGrads(call *graph.CPUCall, window int) *grads {
	d := call.Dims
	n := d["B"] * d["H"] * d["T"]
	return &grads{
		d: d, window: window, tokens: d["T"], channels: d["D"], heads: d["H"], group: d["H"] / d["K"],
		scale: float32(1 / math.Sqrt(float64(d["D"]))),
		q:     call.In[0], k: call.In[1], v: call.In[2], o: call.In[3], lse: call.In[4], do: call.In[5],
		dq: call.Out[0], dk: call.Out[1], dv: call.Out[2],
		negativeLSE: call.Workspace[:n], negativeDelta: call.Workspace[n : 2*n],
	}
}

func newGradWorkers(call *graph.CPUCall) []gradWorker {
	d := call.Dims
	n, list := min(gradBlock, d["T"]), make([]gradWorker, call.Pool.Workers())
	space := call.Workspace[2*d["B"]*d["H"]*d["T"]:]
	share := len(space) / len(list)
	for i := range list {
		cut := cutter(space[i*share:][:share])
		list[i] = gradWorker{
			keys: cut.next(n * d["D"]), values: cut.next(n * d["D"]),
			p: cut.next(n * gradQueries), ds: cut.next(n * gradQueries),
			scratch: cut.next(backwardScratch(d)),
		}
	}
	return list
}

// prepare gathers -lse and -delta of rows [lo, hi). dq may overlap o, which isn't read afterwards.
func (g *grads) prepare(lo, hi int) {
	for i := lo; i < hi; i++ {
		lse, do, o := g.lse.Row(i), g.do.Row(i), g.o.Row(i)
		for h := range g.heads {
			to := g.vectorAt(i/g.tokens, h) + i%g.tokens
			from := h * g.channels
			g.negativeLSE[to] = -lse[h]
			g.negativeDelta[to] = -g.scale * simd.Dot(do[from:][:g.channels], o[from:][:g.channels])
		}
	}
}

// vectorAt is the index at which the tokens of a head start in negativeLSE and negativeDelta.
func (g *grads) vectorAt(b, h int) int { return (b*g.heads + h) * g.tokens }

// pair adds the contributions of the block of keys starting at token k0 and the block of queries
// starting at token q0 to each other's gradients, for key/value head n of row b.
func (g *grads) pair(w *gradWorker, b, n, k0, q0 int) {
	row := b*g.tokens + k0
	count := min(gradBlock, g.tokens-k0)
	k, v := at(g.k, g.d, row, n), at(g.v, g.d, row, n)
	for r := range count {
		simd.Scale(w.keys[r*g.channels:][:g.channels], g.scale, k.from(r).data[:g.channels])
		simd.Scale(w.values[r*g.channels:][:g.channels], g.scale, v.from(r).data[:g.channels])
	}
	if q0 == k0 { // the first diagonal: it visits each block of keys and of queries once
		g.clear(b, n, k0, count)
	}
	for h := n * g.group; h < (n+1)*g.group; h++ {
		for t := q0; t < min(q0+gradBlock, g.tokens); t += gradQueries {
			g.queries(w, b, h, n, k0, count, t, min(gradQueries, g.tokens-t))
		}
	}
}

func (g *grads) clear(b, n, first, count int) {
	for i := b*g.tokens + first; i < b*g.tokens+first+count; i++ {
		clear(g.dk.Row(i)[n*g.channels:][:g.channels])
		clear(g.dv.Row(i)[n*g.channels:][:g.channels])
		clear(g.dq.Row(i)[n*g.group*g.channels:][:g.group*g.channels])
	}
}

// queries adds the contributions of the m queries starting at token t, in head h, and of those of
// the `count` keys starting at token k0 that they see, in head n, to each other's gradients.
func (g *grads) queries(w *gradWorker, b, h, n, k0, count, t, m int) {
	lo, hi := max(0, t-g.window+1-k0), min(count, t+m-k0)
	if lo >= hi {
		return
	}
	keys, row, col := hi-lo, b*g.tokens+t, g.vectorAt(b, h)+t
	q, do, dq := at(g.q, g.d, row, h), at(g.do, g.d, row, h), at(g.dq, g.d, row, h)
	row = b*g.tokens + k0 + lo
	k, dk, dv := at(g.k, g.d, row, n), at(g.dk, g.d, row, n), at(g.dv, g.d, row, n)

	// The products accumulate onto -lse and -delta, one row per key.
	for j := range keys {
		copy(w.p[j*gradQueries:][:m], g.negativeLSE[col:])
		copy(w.ds[j*gradQueries:][:m], g.negativeDelta[col:])
	}
	s := transposedScoresOf(keys, m, g.channels)
	s.LDA, s.LDB, s.LDC = g.channels, q.stride, gradQueries
	s.Serial(w.keys[lo*g.channels:], q.data, w.p, w.scratch)
	s.LDB = do.stride
	s.Serial(w.values[lo*g.channels:], do.data, w.ds, w.scratch)
	for j := range keys {
		// The queries [from, to) see this key.
		offset := k0 + lo + j - t
		from, to := max(0, offset), min(m, offset+g.window)
		p, ds := w.p[j*gradQueries:][:m], w.ds[j*gradQueries:][:m]
		simd.Exp(p[from:to], p[from:to])
		simd.Mul(ds[from:to], ds[from:to], p[from:to])
		clear(p[:from])
		clear(p[to:])
		clear(ds[:from])
		clear(ds[to:])
	}

	s = keyGradOf(keys, m, g.channels)
	s.LDA, s.LDB, s.LDC = gradQueries, do.stride, dv.stride
	s.Serial(w.p, do.data, dv.data, w.scratch)
	s.LDB, s.LDC = q.stride, dk.stride
	s.Serial(w.ds, q.data, dk.data, w.scratch)
	s = queryGradOf(keys, m, g.channels)
	s.LDA, s.LDB, s.LDC = gradQueries, k.stride, dq.stride
	s.Serial(w.ds, k.data, dq.data, w.scratch)
}
