package last_token

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed last_token.cu
var source string

func launches(c *graph.CUDACall) ([]graph.Launch, error) {
	x, y := c.In[0], c.Out[0]
	return []graph.Launch{{
		Kernel:  "last_token",
		Defines: map[string]string{"X_T": x.DType.CType(), "Y_T": y.DType.CType()},
		Grid:    [3]int{c.Dims["B"], 1, 1},
		Block:   [3]int{256, 1, 1},
		Args:    []any{x.Address, y.Address, int32(c.Dims["T"]), int32(y.Cols), uint64(x.Stride), uint64(y.Stride)},
	}}, nil
}
