package attention

import (
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

// tiling is how a kernel of tiles.cu divides its work.
type tiling struct {
	warps    int // per block
	rowTiles int // tiles of 16 queries per warp; forward only
	step     int // keys, or queries, that a block processes at a time
	held     int // tiles of `step` rows in shared memory
	blocks   int // minimum number of blocks per SM
}

// The sizes of tiles.cu keep a block's shared memory below the 99 KiB that every GPU with bf16 has,
// and its accumulators within 255 registers per thread.
var (
	forwardTiling = map[int]tiling{64: {4, 2, 64, 4, 2}, 128: {4, 2, 64, 4, 2}, 256: {4, 1, 32, 4, 2}}
	dkvTiling     = map[int]tiling{64: {4, 1, 64, 4, 2}, 128: {4, 1, 64, 4, 2}, 256: {4, 1, 32, 4, 2}}
	dqTiling      = map[int]tiling{64: {4, 1, 64, 4, 2}, 128: {4, 1, 64, 4, 2}, 256: {4, 1, 16, 4, 2}}
)

// tilesLaunch launches a kernel whose blocks handle `rows` tokens each and keep in shared memory
// ownRows rows of these, the rows of the steps, and `floats` float32s.
func (c Config) tilesLaunch(kernel, file string, t tiling, d graph.Dims, heads, rows, ownRows, floats int, args ...any) graph.Launch {
	macros := c.macros(nil, "visible", "tiles", file)
	macros["WARPS"] = strconv.Itoa(t.warps)
	macros["ROW_TILES"] = strconv.Itoa(t.rowTiles)
	macros["STEP"] = strconv.Itoa(t.step)
	macros["BLOCKS"] = strconv.Itoa(t.blocks)
	return graph.Launch{
		Kernel:  kernel,
		Defines: macros,
		Grid:    [3]int{ceil(d["T"], rows), heads, d["B"]},
		Block:   [3]int{32 * t.warps, 1, 1},
		Shared:  2*(ownRows+t.held*t.step)*c.HeadDim + 4*floats,
		Args:    args,
	}
}

func (c Config) forwardTiles(call pass) graph.Launch {
	q, k, v, o, lse, d := call.In[0], call.In[1], call.In[2], call.Out[0], call.Out[1], call.Dims
	t := forwardTiling[c.HeadDim]
	queries := 16 * t.rowTiles * t.warps
	l := c.tilesLaunch("attention_tiles", "tiles_forward", t, d, d["H"], queries, queries, 0,
		q.Address, k.Address, v.Address, o.Address, lse.Address,
		int32(d["T"]), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale()*log2e, call.start,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(o.Stride), uint64(lse.Stride))
	l.Defines[macro("tiles_queries")] = "1"
	return l
}

func (c Config) dkvTiles(call pass, w workspace) graph.Launch {
	q, k, v, do, dk, dv, d := call.In[0], call.In[1], call.In[2], call.In[5], call.Out[1], call.Out[2], call.Dims
	t := dkvTiling[c.HeadDim]
	keys := 16 * t.warps / max(1, c.HeadDim/128)
	return c.tilesLaunch("attention_dkv_tiles", "tiles_dkv", t, d, d["K"], keys, 2*keys, t.held*t.step,
		q.Address, k.Address, v.Address, do.Address, w.lse2, w.delta, dk.Address, dv.Address,
		int32(d["T"]), int32(padded(d)), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale(), call.start,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(do.Stride), uint64(dk.Stride), uint64(dv.Stride))
}

func (c Config) dqTiles(call pass, w workspace) graph.Launch {
	q, k, v, do, dq, d := call.In[0], call.In[1], call.In[2], call.In[5], call.Out[0], call.Dims
	t := dqTiling[c.HeadDim]
	queries := 16 * t.warps
	return c.tilesLaunch("attention_dq_tiles", "tiles_dq", t, d, d["H"], queries, 2*queries, 0,
		q.Address, k.Address, v.Address, do.Address, w.lse2, w.delta, dq.Address,
		int32(d["T"]), int32(padded(d)), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale(), call.start,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(do.Stride), uint64(dq.Stride))
}
