package rms_norm

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed rms_norm.cu
var source string

const (
	// share is the number of elements of a row per thread, unless a row has more than the 1024
	// threads of a block can hold this way.
	share = 8
	// multiprocessors is the number of SMs of an H100. Other GPUs use as many blocks, for the same
	// bits of dw.
	multiprocessors = 132
)

// rowWarps is the number of warps per row, and blockRows the number of rows of a block that should
// have this many warps.
func rowWarps(d graph.Dims) int { return min(32, (d["D"]+32*share-1)/(32*share)) }

func blockRows(d graph.Dims, warps int) int { return max(1, warps/rowWarps(d)) }

const (
	forwardWarps  = 8
	backwardWarps = 12
)

// backwardBlocks is the number of blocks per SM in the backward pass: together 24 warps or slightly
// fewer, with 80 registers per thread.
func backwardBlocks(d graph.Dims) int {
	return max(1, 2*backwardWarps/(rowWarps(d)*blockRows(d, backwardWarps)))
}

// dwParts is the number of blocks that sum dw. It depends only on the sizes, and so do the bits of
// dw.
func dwParts(d graph.Dims) int {
	rows := blockRows(d, backwardWarps)
	return min(multiprocessors*backwardBlocks(d), (d["B"]*d["T"]+rows-1)/rows)
}

func backwardWorkspaceCUDA(d graph.Dims) int { return 4 * dwParts(d) * d["D"] }

// vectorWidth is the number of elements, 8, 4 or 1, that rows of all buffers can be accessed at a
// time.
func vectorWidth(buffers ...graph.DeviceBuffer) int {
	width := 8
	for _, b := range buffers {
		fits := func(n int) bool {
			size := b.DType.Size()
			if b.DType == graph.Float24 {
				size = graph.BFloat16.Size() // of its first plane; the second one starts at a multiple of n
			}
			return b.Cols%n == 0 && b.Stride%n == 0 && b.Address%uint64(min(16, n*size)) == 0
		}
		for width > 1 && !fits(width) {
			width = max(1, width/8*4)
		}
	}
	return width
}

func defines(d graph.Dims, rows int) map[string]string {
	return map[string]string{"D": strconv.Itoa(d["D"]), "WARPS": strconv.Itoa(rowWarps(d)), "ROWS": strconv.Itoa(rows)}
}

func forwardCUDA(eps float64) func(*graph.CUDACall) ([]graph.Launch, error) {
	return func(c *graph.CUDACall) ([]graph.Launch, error) {
		x, w, y, rstd := c.In[0], c.In[1], c.Out[0], c.Out[1]
		rows := blockRows(c.Dims, forwardWarps)
		m := defines(c.Dims, rows)
		m["X_T"], m["Y_T"] = x.DType.CType(), y.DType.CType()
		return []graph.Launch{{
			Kernel: "rms_norm", Defines: m,
			Grid:  [3]int{(x.Rows + rows - 1) / rows, 1, 1},
			Block: [3]int{32 * rowWarps(c.Dims) * rows, 1, 1},
			Args: []any{x.Address, w.Address, y.Address, rstd.Address,
				uint64(x.Stride), uint64(y.Stride), int32(x.Rows), float32(eps)},
		}}, nil
	}
}

func (f backward) launches(c *graph.CUDACall) ([]graph.Launch, error) {
	x, w, rstd, dy, dx, dw := c.In[0], c.In[1], c.In[2], c.In[3], c.Out[0], c.Out[1]
	rows := blockRows(c.Dims, backwardWarps)
	m := defines(c.Dims, rows)
	m["X_T"], m["DY_T"], m["DX_T"] = x.DType.CType(), dy.DType.CType(), dx.DType.CType()
	args := []any{x.Address, w.Address, rstd.Address, dy.Address, dx.Address, c.Workspace,
		uint64(x.Stride), uint64(dy.Stride), uint64(dx.Stride), int32(x.Rows)}
	moved := []graph.DeviceBuffer{x, w, dy, dx}
	if f.fromY {
		m["FROM_Y"] = "1"
	}
	if f.add {
		z := c.In[4]
		m["Z_T"] = z.DType.CType()
		args, moved = append(args, z.Address, uint64(z.Stride)), append(moved, z)
	}
	if f.rounded {
		to := c.Out[2]
		m["ROUNDED_T"] = to.DType.CType()
		args, moved = append(args, to.Address, uint64(to.Stride)), append(moved, to)
	}
	m["WIDTH"], m["BLOCKS"] = strconv.Itoa(vectorWidth(moved...)), strconv.Itoa(backwardBlocks(c.Dims))
	return []graph.Launch{{
		Kernel: "rms_norm_backward", Defines: m,
		Grid:  [3]int{dwParts(c.Dims), 1, 1},
		Block: [3]int{32 * rowWarps(c.Dims) * rows, 1, 1},
		Args:  args,
	}, {
		Kernel: "rms_norm_dw", Defines: m,
		Grid:  [3]int{(c.Dims["D"] + 31) / 32, 1, 1},
		Block: [3]int{1024, 1, 1},
		Args:  []any{c.Workspace, dw.Address, int32(dwParts(c.Dims))},
	}}, nil
}
