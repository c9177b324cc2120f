package rotary_bias

import (
	_ "embed"
	"math"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed rotary_bias.cu
var source string

func launch(c *graph.CUDACall, kernel string, blocks int, addresses ...any) []graph.Launch {
	return []graph.Launch{{
		Kernel:  kernel,
		Defines: map[string]string{"HALF": strconv.Itoa(c.Dims["D"] / 2)},
		Grid:    [3]int{blocks, 1, 1},
		Block:   [3]int{256, 1, 1},
		Args:    append(addresses, math.Float64bits(base), int32(c.Dims["W"])),
	}}
}

func cudaForward(c *graph.CUDACall) ([]graph.Launch, error) {
	return launch(c, "rotary_bias", (c.Dims["W"]+7)/8, c.In[0].Address, c.In[1].Address, c.Out[0].Address), nil
}

func cudaBackward(c *graph.CUDACall) ([]graph.Launch, error) {
	return launch(c, "rotary_bias_backward", c.Dims["D"]/2,
		c.In[0].Address, c.In[1].Address, c.In[2].Address, c.Out[0].Address, c.Out[1].Address), nil
}
