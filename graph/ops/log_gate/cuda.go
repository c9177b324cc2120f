package log_gate

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed log_gate.cu
var source string

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func forwardCUDA(normalizer float64) func(*graph.CUDACall) ([]graph.Launch, error) {
	return func(c *graph.CUDACall) ([]graph.Launch, error) {
		const share = 8 // SHARE in the source
		x, bias, g := c.In[0], c.In[1], c.Out[0]
		threads := min(256, ceilDiv(x.Cols, 32*share)*32)
		tiles := ceilDiv(x.Cols, threads*share)
		return []graph.Launch{{
			Kernel:  "log_gate",
			Defines: map[string]string{"X_T": x.DType.CType(), "G_T": g.DType.CType()},
			Grid:    [3]int{x.Rows * tiles, 1, 1},
			Block:   [3]int{threads, 1, 1},
			Args: []any{x.Address, bias.Address, g.Address, uint64(x.Stride), uint64(g.Stride),
				int32(x.Cols), int32(tiles), float32(normalizer)},
		}}, nil
	}
}

// rowsPerPart depends only on the number of rows, and so do the bits of dbias: there are at most
// 128 parts.
func rowsPerPart(rows int) int { return max(32, ceilDiv(rows, 128)) }

func dbiasParts(d graph.Dims) int { return ceilDiv(d["B"]*d["T"], rowsPerPart(d["B"]*d["T"])) }

func backwardWorkspaceCUDA(d graph.Dims) int { return 4 * dbiasParts(d) * d["C"] }

func backwardCUDA(normalizer float64) func(*graph.CUDACall) ([]graph.Launch, error) {
	return func(c *graph.CUDACall) ([]graph.Launch, error) {
		const lanes, warps = 32, 8
		x, bias, dg, dx, dbias := c.In[0], c.In[1], c.In[2], c.Out[0], c.Out[1]
		width, parts := vectorWidth(x, bias, dg, dx), dbiasParts(c.Dims)
		m := map[string]string{"X_T": x.DType.CType(), "DG_T": dg.DType.CType(), "DX_T": dx.DType.CType(), "WIDTH": strconv.Itoa(width)}
		return []graph.Launch{{
			Kernel: "log_gate_backward", Defines: m,
			Grid:  [3]int{ceilDiv(x.Cols, lanes*width), parts, 1},
			Block: [3]int{lanes * warps, 1, 1},
			Args: []any{x.Address, bias.Address, dg.Address, dx.Address, c.Workspace,
				uint64(x.Stride), uint64(dg.Stride), uint64(dx.Stride),
				int32(x.Rows), int32(x.Cols), int32(rowsPerPart(x.Rows)), float32(normalizer)},
		}, {
			Kernel: "log_gate_dbias", Defines: m,
			Grid:  [3]int{ceilDiv(x.Cols, lanes), 1, 1},
			Block: [3]int{1024, 1, 1},
			Args:  []any{c.Workspace, dbias.Address, int32(parts), int32(x.Cols)},
		}}, nil
	}
}

// vectorWidth is 4 if the rows of all buffers can be accessed 4 elements at a time.
func vectorWidth(buffers ...graph.DeviceBuffer) int {
	for _, b := range buffers {
		if b.Cols%4 != 0 || b.Stride%4 != 0 || b.Address%uint64(4*b.DType.Size()) != 0 {
			return 1
		}
	}
	return 4
}
