package accumulate

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed accumulate.cu
var source string

func launches(first bool) func(c *graph.CUDACall) ([]graph.Launch, error) {
	macros := map[string]string{}
	if first {
		macros["FIRST"] = "1"
	}
	return func(c *graph.CUDACall) ([]graph.Launch, error) {
		const threads, share = 256, 8 // share is SHARE in the source
		n := c.Dims["N"]
		return []graph.Launch{{
			Kernel:  "accumulate",
			Defines: macros,
			Grid:    [3]int{(n + threads*share - 1) / (threads * share), 1, 1},
			Block:   [3]int{threads, 1, 1},
			Args:    []any{c.In[0].Address, c.In[1].Address, uint64(n)},
		}}, nil
	}
}
