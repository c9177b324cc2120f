package attention

import "github.com/sambatrain/sambatrain/graph"

// The tile sizes of wgmma_gradient.cu.
const (
	gradientWidth = 256 // of a head
	gradientRows  = 128 // per block
	gradientStep  = 64  // rows processed at a time
	gradientWarps = 12  // 8 multiply, the others copy
)

// gradientParts returns the number of parts that the query heads sharing a key head are cut into,
// so that a GPU has two blocks per SM for dk, and for dv.
func gradientParts(d graph.Dims) int {
	group := d["H"] / d["K"]
	heads := group * d["B"] * d["K"] * ceil(d["T"], gradientRows) / (2 * 132) // per part
	return ceil(group, max(1, heads))
}

// gradientBytes is the size of the partial sums of dk, or of dv.
func gradientBytes(d graph.Dims) int {
	n := gradientParts(d)
	if n == 1 {
		return 0
	}
	return 4 * n * d["B"] * d["K"] * ceil(d["T"], gradientRows) * gradientRows * d["D"]
}

// gradientWarpgroups is the backward pass of wide heads, after delta.
func (c Config) gradientWarpgroups(call pass, w workspace, base float64) []graph.Launch {
	d, parts := call.Dims, gradientParts(call.Dims)
	dq, dk, dv := call.Out[0], call.Out[1], call.Out[2]
	return append(append(
		c.gradient(call, w, base, "KEYS", dk, d["K"], parts, c.scale(), 2, 3),
		c.gradient(call, w, base, "VALUES", dv, d["K"], parts, 1, 1, 4)...),
		c.gradient(call, w, base, "QUERIES", dq, d["H"], 1, c.scale(), 2, 3)...)
}

// gradient computes one of dq, dk and dv. Its kernel holds `rows` operands of its block's rows and
// `steps` operands of steps in shared memory.
func (c Config) gradient(call pass, w workspace, base float64, of string, dx graph.DeviceBuffer, heads, parts int, scale float32, rows, steps int) []graph.Launch {
	q, k, v, do, d := call.In[0], call.In[1], call.In[2], call.In[5], call.Dims
	macros := c.warpgroupMacros("wgmma_gradient", gradientWarps, gradientStep)
	macros["GRADIENT"] = of
	if base != 0 {
		macros["ROTARY"] = "1"
	}
	tiles := ceil(d["T"], gradientRows)
	list := []graph.Launch{{
		Kernel:  "attention_gradient",
		Defines: macros,
		Grid:    [3]int{tiles, heads * parts, d["B"]},
		Block:   [3]int{32 * gradientWarps, 1, 1},
		Shared:  2*c.HeadDim*(rows*gradientRows+steps*gradientStep) + 4*4*gradientStep,
		Args: []any{q.Address, k.Address, v.Address, do.Address, w.lse2, w.delta, dx.Address, w.sums,
			int32(d["T"]), int32(padded(d)), int32(d["H"] / d["K"]), int32(parts), int32(c.window(d["T"])), c.scale(), call.start, w.frequencies,
			uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(do.Stride), uint64(dx.Stride)},
	}}
	if parts > 1 {
		list = append(list, graph.Launch{
			Kernel:  "attention_gradient_join",
			Defines: macros,
			Grid:    [3]int{tiles, heads, d["B"]},
			Block:   [3]int{256, 1, 1},
			Shared:  2 * gradientRows * c.HeadDim,
			Args:    []any{w.sums, dx.Address, int32(d["T"]), int32(parts), scale, w.frequencies, uint64(dx.Stride)},
		})
	}
	return list
}
