package linear_recurrence

import "github.com/sambatrain/sambatrain/graph"

type forwardKernel struct {
	kernel
	o     graph.Buffer
	state []float32 // [B H Dk Dv], nil if none is carried
}

func (f *form) forward(c *graph.CPUCall) func() { return f.bindForward(c, nil) }

func (f *form) forwardCarry(c *graph.CPUCall) func() {
	return f.bindForward(c, c.In[len(c.In)-1].F32)
}

// bindForward makes two passes: each span separately, and then a task for each slice of a
// sequence's values, which carries its slice of the state through the spans in order.
func (f *form) bindForward(c *graph.CPUCall, state []float32) func() {
	k := &forwardKernel{f.newKernel(c, shapeOf(c.Dims).slicedState(), f.gates(c.In)...), c.Out[0], state}
	prepare, sweep := k.prepare, k.sweep
	pass := func(sequences int) {
		c.Pool.Run(sequences*k.chunks(), prepare)
		c.Pool.Run(sequences*parts(k.values, valueSlice), sweep)
	}
	return func() { k.each(pass) }
}

func forwardWorkspace(d graph.Dims, workers int) int {
	s := shapeOf(d)
	return s.workspace(workers, s.slicedState())
}

// slicedState is the size of a slice of values of a state.
func (s shape) slicedState() int { return s.keys * min(valueSlice, s.values) }

func (f *forwardKernel) sweep(task, worker int) {
	w, slices := &f.workers[worker], parts(f.values, valueSlice)
	sequence, column := task/slices, task%slices*valueSlice
	width := min(valueSlice, f.values-column)
	state := matrix{w.states[:f.keys*width], width}
	if f.state != nil {
		state = matrix{f.state[(f.before+sequence)*f.keys*f.values:], f.values}.from(0, column)
	} else {
		clear(state.data)
	}
	for i := range f.chunks() {
		s := f.at(sequence, i)
		v := headOf(f.v, s.first, s.head, f.values).from(0, column)
		o := headOf(f.o, s.first, s.head, f.values).from(0, column)
		product{a: plain(s.scores), b: plain(v), c: o, m: s.n, n: width, k: s.n}.run(w.products)
		if i > 0 || f.state != nil {
			product{a: plain(s.reads), b: plain(state), c: o, m: s.n, n: width, k: f.keys, add: true}.run(w.products)
		}
		if i < f.chunks()-1 || f.state != nil {
			fade(state, state, s.total, width)
			product{a: transposed(s.writes), b: plain(v), c: state, m: f.keys, n: width, k: s.n, add: true}.run(w.products)
		}
	}
}
