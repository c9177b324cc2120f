package grad_norm

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed grad_norm.cu
var source string

// parts is the number of blocks that sum squares: it fixes the order of the sum.
func parts(d graph.Dims) int {
	const most, tile = 1024, 256 * 16
	return min(most, (d["N"]+tile-1)/tile)
}

func workspaceCUDA(d graph.Dims) int { return 8 * parts(d) }

// launchesTo sums squares; kernel computes the result from the blocks' sums.
func launchesTo(kernel string) func(c *graph.CUDACall) ([]graph.Launch, error) {
	return func(c *graph.CUDACall) ([]graph.Launch, error) {
		n := parts(c.Dims)
		return []graph.Launch{{
			Kernel: "grad_norm_parts",
			Grid:   [3]int{n, 1, 1},
			Block:  [3]int{256, 1, 1},
			Args:   []any{c.In[0].Address, c.Workspace, uint64(c.Dims["N"])},
		}, {
			Kernel: kernel,
			Grid:   [3]int{1, 1, 1},
			Block:  [3]int{256, 1, 1},
			Args:   []any{c.Workspace, c.Out[0].Address, int32(n)},
		}}, nil
	}
}

func launchRoot(c *graph.CUDACall) ([]graph.Launch, error) {
	return []graph.Launch{{
		Kernel: "grad_root",
		Grid:   [3]int{1, 1, 1},
		Block:  [3]int{1, 1, 1},
		Args:   []any{c.In[0].Address, c.Out[0].Address},
	}}, nil
}
