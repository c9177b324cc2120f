package embedding

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

const (
	// rowsPerTask makes a task long enough to be worth scheduling.
	rowsPerTask = 64
	// columnsPerTask is the number of columns of dw that one task sums over all tokens.
	columnsPerTask = 128
)

func forward(c *graph.CPUCall) func() {
	tokens, w, x := c.In[0].I32, c.In[1], c.Out[0]
	task := func(i, _ int) {
		for r := i * rowsPerTask; r < min((i+1)*rowsPerTask, x.Rows); r++ {
			copy(x.Row(r), w.Row(int(tokens[r])))
		}
	}
	return func() {
		checkTokens(tokens, w.Rows)
		c.Pool.Run(tasks(x.Rows, rowsPerTask), task)
	}
}

// forwardNext runs on one worker: there is only one token per sequence.
func forwardNext(c *graph.CPUCall) func() {
	tokens, next, w, x := c.In[0].I32, c.In[1].I32, c.In[2], c.Out[0]
	return func() {
		for i, id := range tokens {
			if id < 0 {
				id = next[i]
			}
			checkToken(i, int(id), w.Rows)
			copy(x.Row(i), w.Row(int(id)))
		}
	}
}

func dw(c *graph.CPUCall) func() {
	dw := c.Out[0]
	return sumInto(c, func(v int) { clear(dw.Row(v)) })
}

// dwAdd starts from z, which already is in dw if the plan could arrange it.
func dwAdd(c *graph.CPUCall) func() {
	z, dw := c.In[2], c.Out[0]
	if &z.F32[0] == &dw.F32[0] {
		return sumInto(c, nil)
	}
	return sumInto(c, func(v int) { copy(dw.Row(v), z.Row(v)) })
}

// sumInto adds to the rows of dw, after calling start for each. It divides the sum by columns, so
// that one task computes each element and adds its terms in the order of the tokens.
func sumInto(c *graph.CPUCall, start func(v int)) func() {
	tokens, dx, dw := c.In[0].I32, c.In[1], c.Out[0]
	begin := func(i, _ int) {
		for v := i * rowsPerTask; v < min((i+1)*rowsPerTask, dw.Rows); v++ {
			start(v)
		}
	}
	sum := func(i, _ int) {
		lo, hi := i*columnsPerTask, min((i+1)*columnsPerTask, dw.Cols)
		for r, id := range tokens {
			row := dw.Row(int(id))[lo:hi]
			simd.Add(row, row, dx.Row(r)[lo:hi])
		}
	}
	return func() {
		checkTokens(tokens, dw.Rows)
		if start != nil {
			c.Pool.Run(tasks(dw.Rows, rowsPerTask), begin)
		}
		c.Pool.Run(tasks(dw.Cols, columnsPerTask), sum)
	}
}

// checkTokens runs before the tasks, so that it panics in the caller and not in a worker.
func checkTokens(tokens []int32, vocab int) {
	for i, id := range tokens {
		checkToken(i, int(id), vocab)
	}
}

func tasks(n, each int) int { return (n + each - 1) / each }
