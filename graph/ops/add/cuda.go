package add

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed add.cu
var source string

func launches(c *graph.CUDACall) ([]graph.Launch, error) {
	x, y, z := c.In[0], c.In[1], c.Out[0]
	const share = 8 // elements per thread, SHARE in the source
	threads := min(256, (z.Cols+32*share-1)/(32*share)*32)
	tiles := (z.Cols + threads*share - 1) / (threads * share)
	return []graph.Launch{{
		Kernel:  "add",
		Defines: map[string]string{"X_T": x.DType.CType(), "Y_T": y.DType.CType(), "Z_T": z.DType.CType()},
		Grid:    [3]int{z.Rows * tiles, 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args: []any{x.Address, y.Address, z.Address,
			uint64(x.Stride), uint64(y.Stride), uint64(z.Stride), uint64(z.Cols), int32(tiles)},
	}}, nil
}
