package silu

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed silu.cu
var source string

func cudaForward(c *graph.CUDACall) ([]graph.Launch, error) {
	x, y := c.In[0], c.Out[0]
	blocks, threads, tiles := graph.RowTiles(y.Rows, y.Cols)
	return []graph.Launch{{
		Kernel:  "silu_rows",
		Defines: map[string]string{"X_T": x.DType.CType(), "Y_T": y.DType.CType()},
		Grid:    [3]int{blocks, 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args:    []any{x.Address, y.Address, uint64(x.Stride), uint64(y.Stride), int32(y.Cols), int32(tiles)},
	}}, nil
}

func cudaBackward(c *graph.CUDACall) ([]graph.Launch, error) {
	x, dy, dx := c.In[0], c.In[1], c.Out[0]
	blocks, threads, tiles := graph.RowTiles(dx.Rows, dx.Cols)
	return []graph.Launch{{
		Kernel:  "silu_backward",
		Defines: map[string]string{"X_T": x.DType.CType(), "DY_T": dy.DType.CType(), "DX_T": dx.DType.CType()},
		Grid:    [3]int{blocks, 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args: []any{x.Address, dy.Address, dx.Address,
			uint64(x.Stride), uint64(dy.Stride), uint64(dx.Stride), int32(dx.Cols), int32(tiles)},
	}}, nil
}
