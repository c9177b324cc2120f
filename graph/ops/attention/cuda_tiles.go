package attention

import (
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

// tiling is how a kernel of tiles.cu cuts up its work. The sizes keep a block's
// shared memory below the 99 KiB that every GPU with bf16 has, and its accumulators
// within 255 registers a thread.
type tiling struct {
	warps    int // of a block
	rowTiles int // tiles of 16 queries that a warp holds; forward only
	step     int // keys, or queries, that a block takes in at a time
	blocks   int // that a multiprocessor can hold, at least
}

var (
	forwardTiling = map[int]tiling{64: {4, 2, 64, 2}, 128: {4, 2, 64, 2}, 256: {4, 1, 32, 2}}
	dkvTiling     = map[int]tiling{64: {4, 1, 64, 2}, 128: {4, 1, 64, 2}, 256: {4, 1, 32, 2}}
	dqTiling      = map[int]tiling{64: {4, 1, 64, 2}, 128: {4, 1, 64, 2}, 256: {4, 1, 16, 2}}
)

// fitTiles reports whether the tensor cores' kernels can be used.
func (c Config) fitTiles(operands ...graph.DeviceBuffer) bool {
	for _, o := range operands {
		if o.DType != graph.BFloat16 || o.Address%16 != 0 || o.Stride%8 != 0 {
			return false
		}
	}
	_, ok := forwardTiling[c.HeadDim]
	return ok
}

// tilesLaunch is a kernel whose blocks take rows tokens each, and hold tileRows rows
// of bf16 and floats float32s in shared memory.
func (c Config) tilesLaunch(kernel, file string, t tiling, d graph.Dims, heads, rows, tileRows, floats int, args ...any) graph.Launch {
	macros := c.macros(nil, "tiles", file)
	macros["WARPS"] = strconv.Itoa(t.warps)
	macros["ROW_TILES"] = strconv.Itoa(t.rowTiles)
	macros["STEP"] = strconv.Itoa(t.step)
	macros["BLOCKS"] = strconv.Itoa(t.blocks)
	return graph.Launch{
		Kernel:  kernel,
		Defines: macros,
		Grid:    [3]int{ceil(d["T"], rows), heads, d["B"]},
		Block:   [3]int{32 * t.warps, 1, 1},
		Shared:  2*tileRows*c.HeadDim + 4*floats,
		Args:    args,
	}
}

func (c Config) forwardTiles(call *graph.CUDACall) graph.Launch {
	q, k, v, o, lse, d := call.In[0], call.In[1], call.In[2], call.Out[0], call.Out[1], call.Dims
	t := forwardTiling[c.HeadDim]
	queries := 16 * t.rowTiles * t.warps
	const log2e = 1.4426950408889634
	return c.tilesLaunch("attention_tiles", "tiles_forward", t, d, d["H"], queries, queries+4*t.step, 0,
		q.Address, k.Address, v.Address, o.Address, lse.Address,
		int32(d["T"]), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale()*log2e,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(o.Stride), uint64(lse.Stride))
}

func (c Config) dkvTiles(call *graph.CUDACall, s statistics) graph.Launch {
	q, k, v, do, dk, dv, d := call.In[0], call.In[1], call.In[2], call.In[5], call.Out[1], call.Out[2], call.Dims
	t := dkvTiling[c.HeadDim]
	keys := 16 * t.warps / max(1, c.HeadDim/128)
	return c.tilesLaunch("attention_dkv_tiles", "tiles_dkv", t, d, d["K"], keys, 2*keys+4*t.step, 4*t.step,
		q.Address, k.Address, v.Address, do.Address, s.lse2, s.delta, dk.Address, dv.Address,
		int32(d["T"]), int32(s.padded), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale(),
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(do.Stride), uint64(dk.Stride), uint64(dv.Stride))
}

func (c Config) dqTiles(call *graph.CUDACall, s statistics) graph.Launch {
	q, k, v, do, dq, d := call.In[0], call.In[1], call.In[2], call.In[5], call.Out[0], call.Dims
	t := dqTiling[c.HeadDim]
	queries := 16 * t.warps
	return c.tilesLaunch("attention_dq_tiles", "tiles_dq", t, d, d["H"], queries, 2*queries+4*t.step, 0,
		q.Address, k.Address, v.Address, do.Address, s.lse2, s.delta, dq.Address,
		int32(d["T"]), int32(s.padded), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale(),
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(do.Stride), uint64(dq.Stride))
}
