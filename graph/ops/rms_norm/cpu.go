package rms_norm

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerBlock is the number of rows of a task. dw is summed within blocks, and the blocks' sums
// are added in order, so that the result doesn't depend on the number of workers.
const rowsPerBlock = 64

func blocks(rows int) int { return (rows + rowsPerBlock - 1) / rowsPerBlock }

func forward(eps float64) func(*graph.CPUCall) func() {
	return func(c *graph.CPUCall) func() {
		x, w, y, rstd := c.In[0], c.In[1].F32, c.Out[0], c.Out[1]
		task := func(i, _ int) {
			for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
				rstd.F32[r/rstd.Cols*rstd.Stride+r%rstd.Cols] = simd.RMSNormRow(y.Row(r), x.Row(r), w, float32(eps))
			}
		}
		return func() { c.Pool.Run(blocks(x.Rows), task) }
	}
}

// workspace is, for cpu, each block's partial dw and, for each worker, a row of dx to be added to z
// (with add) and a row of x (with fromY).
func (f backward) workspace(d graph.Dims, workers int) int {
	rows := blocks(d["B"] * d["T"])
	if f.add {
		rows += workers
	}
	if f.fromY {
		rows += workers
	}
	return rows * d["D"]
}

// cpu computes, with add, each row of dx in a separate row before it adds z, because dx may
// overwrite z.
func (f backward) cpu(c *graph.CPUCall) func() {
	x, w, rstd, dy, dx, dw := c.In[0], c.In[1].F32, c.In[2], c.In[3], c.Out[0], c.Out[1].F32
	n, d := blocks(x.Rows), len(dw)
	row := func(i int) []float32 { return c.Workspace[i*d : (i+1)*d] }
	task := func(i, worker int) {
		part := row(i)
		clear(part)
		for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
			from, to, scale := x.Row(r), dx.Row(r), rstd.F32[r/rstd.Cols*rstd.Stride+r%rstd.Cols]
			if f.add {
				to = row(n + worker)
			}
			if f.fromY {
				from = row(len(c.Workspace)/d - 1 - worker)
				for j, y := range x.Row(r) {
					from[j] = y / (float32(divisor(float64(w[j]))) * scale)
				}
			}
			simd.RMSNormRowGrad(to, part, from, w, dy.Row(r), scale)
			if f.add {
				simd.Add(dx.Row(r), to, c.In[4].Row(r))
			}
			if f.rounded {
				copy(c.Out[2].Row(r), dx.Row(r))
			}
		}
	}
	return func() {
		c.Pool.Run(n, task)
		clear(dw)
		for i := range n {
			simd.Add(dw, dw, row(i))
		}
	}
}
