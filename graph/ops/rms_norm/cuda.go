package rms_norm

import (
	_ "embed"
	"maps"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed rms_norm.cu
var source string

const (
	// share is the elements of a row that a thread holds, unless a row has more than
	// a block's 1024 threads can hold so.
	share = 8
	// parts is the most blocks that sum dw: two for each multiprocessor of an H100, and
	// few enough that adding their parts costs little.
	parts = 264
)

// rowWarps is the warps of a row, and blockRows the rows of a block that should have
// so many warps.
func rowWarps(d graph.Dims) int { return min(32, (d["D"]+32*share-1)/(32*share)) }

func blockRows(d graph.Dims, warps int) int { return max(1, warps/rowWarps(d)) }

const (
	forwardWarps  = 8
	backwardWarps = 16
)

// dwParts depends on the sizes alone, and so do the bits of dw.
func dwParts(d graph.Dims) int {
	rows := blockRows(d, backwardWarps)
	return min(parts, (d["B"]*d["T"]+rows-1)/rows)
}

func backwardWorkspaceCUDA(d graph.Dims) int { return 4 * dwParts(d) * d["D"] }

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
	sum := defines(c.Dims, rows)
	sum["X_T"], sum["DY_T"] = x.DType.CType(), dy.DType.CType()
	main := graph.Launch{
		Kernel: "rms_norm_backward", Defines: maps.Clone(sum),
		Grid:  [3]int{dwParts(c.Dims), 1, 1},
		Block: [3]int{32 * rowWarps(c.Dims) * rows, 1, 1},
		Args: []any{x.Address, w.Address, rstd.Address, dy.Address, dx.Address, c.Workspace,
			uint64(x.Stride), uint64(dy.Stride), uint64(dx.Stride), int32(x.Rows)},
	}
	if f.fromY {
		main.Defines["FROM_Y"] = "1"
	}
	if f.add {
		z := c.In[4]
		main.Defines["Z_T"] = z.DType.CType()
		main.Args = append(main.Args, z.Address, uint64(z.Stride))
	}
	if f.rounded {
		to := c.Out[2]
		main.Defines["ROUNDED_T"] = to.DType.CType()
		main.Args = append(main.Args, to.Address, uint64(to.Stride))
	}
	return []graph.Launch{main, {
		Kernel: "rms_norm_dw", Defines: sum,
		Grid:  [3]int{(c.Dims["D"] + 31) / 32, 1, 1},
		Block: [3]int{1024, 1, 1},
		Args:  []any{c.Workspace, dw.Address, int32(dwParts(c.Dims))},
	}}, nil
}
