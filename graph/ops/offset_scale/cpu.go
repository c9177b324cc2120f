package offset_scale

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// rowsPerBlock is the number of rows of a task. dscale and doffset are summed within blocks, and
// the blocks' sums are added in order, so that the results don't depend on the number of workers.
const rowsPerBlock = 64

func blocks(rows int) int { return (rows + rowsPerBlock - 1) / rowsPerBlock }

func forward(c *graph.CPUCall) func() {
	x, scale, offset, y := c.In[0], c.In[1].F32, c.In[2].F32, c.Out[0]
	width := x.Cols
	task := func(i, _ int) {
		for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
			x, y := x.Row(r), y.Row(r)
			for h := 0; h < len(y); h += width {
				simd.Mul(y[h:h+width], x, scale[h:h+width])
			}
			simd.Add(y, y, offset)
		}
	}
	return func() { c.Pool.Run(blocks(x.Rows), task) }
}

func backward(c *graph.CPUCall) func() {
	x, scale, dy := c.In[0], c.In[1].F32, c.In[2]
	dx, dscale, doffset := c.Out[0], c.Out[1].F32, c.Out[2].F32
	n, width, all := blocks(x.Rows), x.Cols, len(scale)
	task := func(i, _ int) {
		part := c.Workspace[i*2*all : (i+1)*2*all]
		clear(part)
		scales, offsets := part[:all], part[all:]
		for r := i * rowsPerBlock; r < min((i+1)*rowsPerBlock, x.Rows); r++ {
			x, dy, dx := x.Row(r), dy.Row(r), dx.Row(r)
			simd.Add(offsets, offsets, dy)
			for h := 0; h < all; h += width {
				simd.MulAdd(scales[h:h+width], dy[h:h+width], x)
			}
			// dx may be x, which isn't read any more.
			simd.Mul(dx, dy[:width], scale[:width])
			for h := width; h < all; h += width {
				simd.MulAdd(dx, dy[h:h+width], scale[h:h+width])
			}
		}
	}
	return func() {
		c.Pool.Run(n, task)
		clear(dscale)
		clear(doffset)
		for i := range n {
			part := c.Workspace[i*2*all : (i+1)*2*all]
			simd.Add(dscale, dscale, part[:all])
			simd.Add(doffset, doffset, part[all:])
		}
	}
}
