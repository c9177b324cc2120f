package round

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed round.cu
var source string

func launches(c *graph.CUDACall) ([]graph.Launch, error) {
	x, y := c.In[0], c.Out[0]
	const share = 8 // elements per thread, SHARE in the source
	threads := min(256, (y.Cols+32*share-1)/(32*share)*32)
	tiles := (y.Cols + threads*share - 1) / (threads * share)
	return []graph.Launch{{
		Kernel:  "round_rows",
		Defines: map[string]string{"X_T": x.DType.CType(), "Y_T": y.DType.CType()},
		Grid:    [3]int{y.Rows * tiles, 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args:    []any{x.Address, y.Address, uint64(x.Stride), uint64(y.Stride), int32(y.Cols), int32(tiles)},
	}}, nil
}
