package swiglu

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed swiglu.cu
var source string

// grid gives each block share elements per thread of one row. share is SHARE in the source.
func grid(rows, cols int) (blocks, threads, tiles int) {
	const share = 8
	threads = min(256, (cols+32*share-1)/(32*share)*32)
	tiles = (cols + threads*share - 1) / (threads * share)
	return rows * tiles, threads, tiles
}

func cudaForward(c *graph.CUDACall) ([]graph.Launch, error) {
	gate, up, y := c.In[0], c.In[1], c.Out[0]
	blocks, threads, tiles := grid(y.Rows, y.Cols)
	return []graph.Launch{{
		Kernel:  "swiglu",
		Defines: map[string]string{"GATE_T": gate.DType.CType(), "UP_T": up.DType.CType(), "Y_T": y.DType.CType()},
		Grid:    [3]int{blocks, 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args: []any{gate.Address, up.Address, y.Address,
			uint64(gate.Stride), uint64(up.Stride), uint64(y.Stride), int32(y.Cols), int32(tiles)},
	}}, nil
}

func cudaBackward(c *graph.CUDACall) ([]graph.Launch, error) {
	gate, up, dy, dgate, dup := c.In[0], c.In[1], c.In[2], c.Out[0], c.Out[1]
	blocks, threads, tiles := grid(dy.Rows, dy.Cols)
	return []graph.Launch{{
		Kernel: "swiglu_backward",
		Defines: map[string]string{
			"GATE_T": gate.DType.CType(), "UP_T": up.DType.CType(), "DY_T": dy.DType.CType(),
			"DGATE_T": dgate.DType.CType(), "DUP_T": dup.DType.CType(),
		},
		Grid:  [3]int{blocks, 1, 1},
		Block: [3]int{threads, 1, 1},
		Args: []any{gate.Address, up.Address, dy.Address, dgate.Address, dup.Address,
			uint64(gate.Stride), uint64(up.Stride), uint64(dy.Stride), uint64(dgate.Stride), uint64(dup.Stride),
			int32(dy.Cols), int32(tiles)},
	}}, nil
}

// cudaBackwardAgain is cudaBackward that also computes y, the last output.
func cudaBackwardAgain(c *graph.CUDACall) ([]graph.Launch, error) {
	list, err := cudaBackward(c)
	y := c.Out[2]
	list[0].Defines["AGAIN_T"] = y.DType.CType()
	list[0].Args = append(list[0].Args, y.Address, uint64(y.Stride))
	return list, err
}
