package offset_scale

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed offset_scale.cu
var source string

func ceilDiv(a, b int) int { return (a + b - 1) / b }

// rowsPerPart depends only on the number of rows, and so do the bits of dscale and doffset: there
// are at most 128 parts.
func rowsPerPart(rows int) int { return max(32, ceilDiv(rows, 128)) }

func backwardWorkspaceCUDA(d graph.Dims) int {
	rows := d["B"] * d["T"]
	return 4 * ceilDiv(rows, rowsPerPart(rows)) * 2 * d["H"] * d["D"]
}

func cudaForward(c *graph.CUDACall) ([]graph.Launch, error) {
	x, scale, offset, y := c.In[0], c.In[1], c.In[2], c.Out[0]
	each := rowsPerPart(x.Rows)
	return []graph.Launch{{
		Kernel:  "offset_scale",
		Defines: map[string]string{"HEADS": strconv.Itoa(c.Dims["H"]), "X_T": x.DType.CType(), "Y_T": y.DType.CType()},
		Grid:    [3]int{ceilDiv(x.Cols, 32), ceilDiv(x.Rows, each), 1},
		Block:   [3]int{256, 1, 1},
		Args: []any{x.Address, scale.Address, offset.Address, y.Address, uint64(x.Stride), uint64(y.Stride),
			int32(x.Rows), int32(x.Cols), int32(each)},
	}}, nil
}

func cudaBackward(c *graph.CUDACall) ([]graph.Launch, error) {
	x, scale, dy := c.In[0], c.In[1], c.In[2]
	dx, dscale, doffset := c.Out[0], c.Out[1], c.Out[2]
	m := map[string]string{"HEADS": strconv.Itoa(c.Dims["H"]), "X_T": x.DType.CType(), "DY_T": dy.DType.CType(), "DX_T": dx.DType.CType()}
	each, size := rowsPerPart(x.Rows), c.Dims["H"]*x.Cols
	parts := ceilDiv(x.Rows, each)
	sum := func(from uint64, to graph.DeviceBuffer) graph.Launch {
		return graph.Launch{
			Kernel: "offset_scale_sum", Defines: m,
			Grid:  [3]int{ceilDiv(size, 256), 1, 1},
			Block: [3]int{256, 1, 1},
			Args:  []any{from, to.Address, int32(parts), int32(2 * size), int32(size)},
		}
	}
	return []graph.Launch{{
		Kernel: "offset_scale_backward", Defines: m,
		Grid:  [3]int{ceilDiv(x.Cols, 32), parts, 1},
		Block: [3]int{256, 1, 1},
		Args: []any{x.Address, scale.Address, dy.Address, dx.Address, c.Workspace,
			uint64(x.Stride), uint64(dy.Stride), uint64(dx.Stride), int32(x.Rows), int32(x.Cols), int32(each)},
	}, sum(c.Workspace, dscale), sum(c.Workspace+uint64(4*size), doffset)}, nil
}
