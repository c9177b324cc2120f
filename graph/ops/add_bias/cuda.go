package add_bias

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed add_bias.cu
var source string

func cudaForward(c *graph.CUDACall) ([]graph.Launch, error) {
	x, bias, y := c.In[0], c.In[1], c.Out[0]
	blocks, threads, tiles := graph.RowTiles(y.Rows, y.Cols)
	return []graph.Launch{{
		Kernel:  "add_bias",
		Defines: map[string]string{"X_T": x.DType.CType(), "Y_T": y.DType.CType()},
		Grid:    [3]int{blocks, 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args:    []any{x.Address, bias.Address, y.Address, uint64(x.Stride), uint64(y.Stride), int32(y.Cols), int32(tiles)},
	}}, nil
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// rowsPerPart depends only on the number of rows, and so do the bits of dbias: there are at most
// 128 parts.
func rowsPerPart(rows int) int { return max(32, ceilDiv(rows, 128)) }

func backwardWorkspaceCUDA(d graph.Dims) int {
	rows := d["B"] * d["T"]
	return 4 * ceilDiv(rows, rowsPerPart(rows)) * d["C"]
}

func cudaBackward(c *graph.CUDACall) ([]graph.Launch, error) {
	dy, dbias := c.In[0], c.Out[0]
	m := map[string]string{"DY_T": dy.DType.CType()}
	each := rowsPerPart(dy.Rows)
	parts := ceilDiv(dy.Rows, each)
	return []graph.Launch{{
		Kernel: "add_bias_backward", Defines: m,
		Grid:  [3]int{ceilDiv(dy.Cols, 32), parts, 1},
		Block: [3]int{256, 1, 1},
		Args:  []any{dy.Address, c.Workspace, uint64(dy.Stride), int32(dy.Rows), int32(dy.Cols), int32(each)},
	}, {
		Kernel: "add_bias_sum", Defines: m,
		Grid:  [3]int{ceilDiv(dy.Cols, 32), 1, 1},
		Block: [3]int{1024, 1, 1},
		Args:  []any{c.Workspace, dbias.Address, int32(parts), int32(dy.Cols)},
	}}, nil
}
