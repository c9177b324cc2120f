package sample

import (
	_ "embed"
	"fmt"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed sample.cu
var source string

const (
	threads = 1024
	part    = 4 * threads // logits of one thread block
	// mostParts is limited by the shared memory of the kernel that combines the parts of a row.
	mostParts = 128
)

func parts(d graph.Dims) int { return (d["N"] + part - 1) / part }

// workspace holds the sorted keys of all parts, the cumulative sums of their weights, and the
// highest key and total weight of each part.
func workspace(d graph.Dims) int { return (8+4)*d["B"]*parts(d)*part + (8+4)*d["B"]*parts(d) }

func launches(c *graph.CUDACall) ([]graph.Launch, error) {
	scores, settings, token, n := c.In[0], c.In[1], c.In[2], parts(c.Dims)
	if n > mostParts {
		return nil, fmt.Errorf("a token of %d can't be sampled on a GPU; at most of %d", c.Dims["N"], mostParts*part)
	}
	all := uint64(scores.Rows * n)
	keys := c.Workspace
	highest := keys + 8*part*all
	sums := highest + 8*all
	totals := sums + 4*part*all
	m := map[string]string{"PART": strconv.Itoa(part), "PARTS": strconv.Itoa(n)}
	args := []any{scores.Address, settings.Address, keys, highest, sums, totals, token.Address, int32(c.Dims["N"]), uint64(scores.Stride)}
	block := [3]int{threads, 1, 1}
	return []graph.Launch{
		{Kernel: "sample_parts", Early: true, Defines: m, Grid: [3]int{n, scores.Rows, 1}, Block: block, Args: args},
		{Kernel: "sample_rows", Early: true, Defines: m, Grid: [3]int{scores.Rows, 1, 1}, Block: block, Args: args},
	}, nil
}
