package argmax

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed argmax.cu
var source string

// part is the number of logits that one thread block reads: 4 vectors of 4 per thread.
const threads, part = 256, 16 * threads

func parts(d graph.Dims) int { return (d["N"] + part - 1) / part }

// workspace holds the key of each part's largest logit.
func workspace(d graph.Dims) int { return 8 * d["B"] * parts(d) }

func launches(c *graph.CUDACall) ([]graph.Launch, error) {
	scores, token := c.In[0], c.In[1]
	width := 1
	if scores.Stride%4 == 0 && scores.Address%16 == 0 {
		width = 4
	}
	return []graph.Launch{{
		Kernel:  "argmax",
		Early:   true,
		Defines: map[string]string{"WIDTH": strconv.Itoa(width), "PART": strconv.Itoa(part)},
		Grid:    [3]int{parts(c.Dims), scores.Rows, 1},
		Block:   [3]int{threads, 1, 1},
		Args:    []any{scores.Address, c.Workspace, token.Address, c.Counter, int32(c.Dims["N"]), uint64(scores.Stride)},
	}}, nil
}
