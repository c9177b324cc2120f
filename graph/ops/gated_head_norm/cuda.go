package gated_head_norm

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed gated_head_norm.cu
var source string

const (
	// warpsPerBlock is the number of warps of a block; each handles a head of a row. WARPS in the
	// source.
	warpsPerBlock = 8
	// mostParts is the largest number of blocks that sum dw: two per SM of an H100, and few enough
	// that adding their partial sums costs little.
	mostParts = 264
)

// dwParts depends only on the sizes, and so do the bits of dw.
func dwParts(d graph.Dims) int { return min(mostParts, blocksOf(d)) }

// blocksOf is the number of blocks that gives each head of each row a warp.
func blocksOf(d graph.Dims) int {
	return (d["B"]*d["T"]*d["H"] + warpsPerBlock - 1) / warpsPerBlock
}

func backwardWorkspaceCUDA(d graph.Dims) int { return 4 * dwParts(d) * d["D"] }

func forwardCUDA(eps float64) func(*graph.CUDACall) ([]graph.Launch, error) {
	return func(c *graph.CUDACall) ([]graph.Launch, error) {
		x, gate, w, y, rstd := c.In[0], c.In[1], c.In[2], c.Out[0], c.Out[1]
		return []graph.Launch{{
			Kernel: "gated_head_norm",
			Defines: map[string]string{"D": strconv.Itoa(c.Dims["D"]),
				"X_T": x.DType.CType(), "GATE_T": gate.DType.CType(), "Y_T": y.DType.CType()},
			Grid:  [3]int{blocksOf(c.Dims), 1, 1},
			Block: [3]int{32 * warpsPerBlock, 1, 1},
			Args: []any{x.Address, gate.Address, w.Address, y.Address, rstd.Address,
				uint64(x.Stride), uint64(gate.Stride), uint64(y.Stride), uint64(rstd.Stride),
				int32(x.Rows), int32(c.Dims["H"]), float32(eps)},
		}}, nil
	}
}

func backwardCUDA(c *graph.CUDACall) ([]graph.Launch, error) {
	x, gate, w, rstd, dy := c.In[0], c.In[1], c.In[2], c.In[3], c.In[4]
	dx, dgate, dw := c.Out[0], c.Out[1], c.Out[2]
	m := map[string]string{"D": strconv.Itoa(c.Dims["D"]), "X_T": x.DType.CType(), "GATE_T": gate.DType.CType(),
		"DY_T": dy.DType.CType(), "DX_T": dx.DType.CType(), "DGATE_T": dgate.DType.CType()}
	parts := dwParts(c.Dims)
	return []graph.Launch{{
		Kernel: "gated_head_norm_backward", Defines: m,
		Grid:  [3]int{parts, 1, 1},
		Block: [3]int{32 * warpsPerBlock, 1, 1},
		Args: []any{x.Address, gate.Address, w.Address, rstd.Address, dy.Address, dx.Address, dgate.Address, c.Workspace,
			uint64(x.Stride), uint64(gate.Stride), uint64(rstd.Stride), uint64(dy.Stride), uint64(dx.Stride), uint64(dgate.Stride),
			int32(x.Rows), int32(c.Dims["H"])},
	}, {
		Kernel: "gated_head_norm_dw", Defines: m,
		Grid:  [3]int{(c.Dims["D"] + 31) / 32, 1, 1},
		Block: [3]int{1024, 1, 1},
		Args:  []any{c.Workspace, dw.Address, int32(parts)},
	}}, nil
}
