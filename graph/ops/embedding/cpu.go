package embedding

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

const (
	// rowsPerTask keeps a task long enough to be worth handing out.
	rowsPerTask = 64
	// columnsPerTask are the columns of dw that one task sums over all tokens.
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

// dw splits the sum by columns, so that each element is one task's and takes its
// terms in the order of the tokens.
func dw(c *graph.CPUCall) func() {
	tokens, dx, dw := c.In[0].I32, c.In[1], c.Out[0]
	zero := func(i, _ int) {
		for v := i * rowsPerTask; v < min((i+1)*rowsPerTask, dw.Rows); v++ {
			clear(dw.Row(v))
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
		c.Pool.Run(tasks(dw.Rows, rowsPerTask), zero)
		c.Pool.Run(tasks(dw.Cols, columnsPerTask), sum)
	}
}

// checkTokens runs before the tasks, so that the panic is the caller's and not a
// worker's.
func checkTokens(tokens []int32, vocab int) {
	for i, id := range tokens {
		checkToken(i, int(id), vocab)
	}
}

func tasks(n, each int) int { return (n + each - 1) / each }
