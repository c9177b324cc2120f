package rope

import (
	_ "embed"
	"math"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed rope.cu
var source string

func (r rotation) launches(c *graph.CUDACall) ([]graph.Launch, error) {
	x, y, d := c.In[0], c.Out[0], c.Dims
	const threads = 256
	half := d["D"] / 2
	tokens := min(max(1, threads/half), d["T"]) // of a block: one angle per thread
	blocks := (d["T"] + tokens - 1) / tokens
	// With few tokens, the rows are distributed over blocks that compute the same angles.
	spread := min(d["B"], (8*c.Multiprocessors+blocks-1)/blocks)
	rows := (d["B"] + spread - 1) / spread
	var position uint64
	if len(c.In) > 1 {
		position, rows = c.In[1].Address, 1 // each row has its own angles
	}
	return []graph.Launch{{
		Kernel:  "rope",
		Defines: map[string]string{"X_T": x.DType.CType(), "Y_T": y.DType.CType(), "WIDTH": strconv.Itoa(width(half, x, y))},
		Grid:    [3]int{blocks, (d["B"] + rows - 1) / rows, 1},
		Block:   [3]int{threads, 1, 1},
		Shared:  2 * tokens * half * 4,
		Early:   d["T"] == 1,
		Args: []any{x.Address, y.Address, position, math.Float64bits(r.base), float32(r.sign),
			int32(d["B"]), int32(d["T"]), int32(d["H"]), int32(half), int32(tokens), int32(rows),
			uint64(x.Stride), uint64(y.Stride)},
	}}, nil
}

// width is the number of elements of half a head that can be accessed at once: 16 bytes of the
// widest operand, or 1 if the operands aren't aligned.
func width(half int, operands ...graph.DeviceBuffer) int {
	n := 8
	for _, o := range operands {
		n = min(n, 16/o.DType.Size())
	}
	for _, o := range operands {
		bytes := n * o.DType.Size()
		if half%n != 0 || o.Stride%n != 0 || o.Address%uint64(bytes) != 0 {
			return 1
		}
	}
	return n
}
