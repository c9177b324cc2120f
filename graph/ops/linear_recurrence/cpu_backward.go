package linear_recurrence

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

type backwardKernel struct {
	kernel
	do, dq, dk, dv graph.Buffer
}

// backward makes three passes: each span separately, as in the forward pass; the states and their
// gradients, by slices of keys for dq and dk and by slices of values for dv, so that no sum spans
// several tasks; and the gradients between the tokens of a span.
func (f *form) backward(c *graph.CPUCall) func() {
	k := &backwardKernel{
		f.newKernel(c, shapeOf(c.Dims).backwardStates(), append(f.gates(c.In), c.Out[3:]...)...),
		c.In[len(c.In)-1], c.Out[0], c.Out[1], c.Out[2],
	}
	prepare, sweep, finish := k.prepare, k.sweep, k.finish
	sweeps := parts(k.keys, keySlice) + parts(k.values, valueSlice)
	pass := func(sequences int) {
		c.Pool.Run(sequences*k.chunks(), prepare)
		c.Pool.Run(sequences*sweeps, sweep)
		c.Pool.Run(sequences*k.chunks(), finish)
	}
	return func() { k.each(pass) }
}

func backwardWorkspace(d graph.Dims, workers int) int {
	s := shapeOf(d)
	return s.workspace(workers, s.backwardStates())
}

// backwardStates is enough for a slice of keys, with its states before each chunk and a gradient;
// for the gradient of a slice of values; and for the gradient of scores.
func (s shape) backwardStates() int {
	return max((s.chunks()+1)*min(keySlice, s.keys)*s.values, s.slicedState(), s.longest()*s.longest())
}

// sweep is one task: the slices of keys come first, as they take longer.
func (f *backwardKernel) sweep(task, worker int) {
	w, keySlices := &f.workers[worker], parts(f.keys, keySlice)
	sequences := min(f.atOnce(), f.sequences()-f.before)
	sequence, slice := task%sequences, task/sequences
	if slice < keySlices {
		f.sweepKeys(w, sequence, slice*keySlice)
	} else {
		f.sweepValues(w, sequence, (slice-keySlices)*valueSlice)
	}
}

// sweepKeys stores the gradients of reads in dq, those of writes in dk, and that of each span's
// decay in through.
func (f *backwardKernel) sweepKeys(w *worker, sequence, column int) {
	width := min(keySlice, f.keys-column)
	size := width * f.values
	before := func(i int) matrix { return matrix{w.states[(i+1)*size:][:size], f.values} }
	dstate := matrix{w.states[:size], f.values}
	clear(before(0).data)
	clear(dstate.data)
	for i := range f.chunks() - 1 {
		s, next := f.at(sequence, i), before(i+1)
		v, writes := headOf(f.v, s.first, s.head, f.values), s.writes.from(0, column)
		fade(next, before(i), s.total[column:][:width], f.values)
		product{a: transposed(writes), b: plain(v), c: next, m: width, n: f.values, k: s.n, add: true}.run(w.products)
	}
	for i := f.chunks() - 1; i >= 0; i-- {
		s, state := f.at(sequence, i), before(i)
		v, do := headOf(f.v, s.first, s.head, f.values), headOf(f.do, s.first, s.head, f.values)
		dq := headOf(f.dq, s.first, s.head, f.keys).from(0, column)
		dk := headOf(f.dk, s.first, s.head, f.keys).from(0, column)
		product{a: plain(do), b: transposed(state), c: dq, m: s.n, n: width, k: f.values}.run(w.products)
		product{a: plain(v), b: transposed(dstate), c: dk, m: s.n, n: width, k: f.values}.run(w.products)
		decays := s.total[column:][:width]
		for r, a := range decays {
			s.through[column+r] = a * simd.Dot(state.row(r, f.values), dstate.row(r, f.values))
		}
		fade(dstate, dstate, decays, f.values)
		product{a: transposed(s.reads.from(0, column)), b: plain(do), c: dstate, m: width, n: f.values, k: s.n, add: true}.run(w.products)
	}
}

// sweepValues computes dv.
func (f *backwardKernel) sweepValues(w *worker, sequence, column int) {
	width := min(valueSlice, f.values-column)
	dstate := matrix{w.states[:f.keys*width], width}
	clear(dstate.data)
	for i := f.chunks() - 1; i >= 0; i-- {
		s := f.at(sequence, i)
		do := headOf(f.do, s.first, s.head, f.values).from(0, column)
		dv := headOf(f.dv, s.first, s.head, f.values).from(0, column)
		product{a: transposed(s.scores), b: plain(do), c: dv, m: s.n, n: width, k: s.n}.run(w.products)
		product{a: plain(s.writes), b: plain(dstate), c: dv, m: s.n, n: width, k: f.keys, add: true}.run(w.products)
		fade(dstate, dstate, s.total, width)
		product{a: transposed(s.reads), b: plain(do), c: dstate, m: f.keys, n: width, k: s.n, add: true}.run(w.products)
	}
}

// finish turns the gradients of reads and writes into those of q and k, and adds those by the
// scores.
func (f *backwardKernel) finish(task, worker int) {
	w := &f.workers[worker]
	s := f.at(task/f.chunks(), task%f.chunks())
	do, v := headOf(f.do, s.first, s.head, f.values), headOf(f.v, s.first, s.head, f.values)
	dscores := matrix{w.states[:s.n*s.n], s.n}
	product{a: plain(do), b: transposed(v), c: dscores, m: s.n, n: s.n, k: f.values}.run(w.products)
	f.decay.gradient(&w.scratch, s, dscores, f.queries(s), f.keysOf(s),
		headOf(f.dq, s.first, s.head, f.keys), headOf(f.dk, s.first, s.head, f.keys))
}
