package attention

import (
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

// tiling is how a kernel of tiles.cu or wgmma.cu cuts up its work.
type tiling struct {
	warps    int // of a block
	rowTiles int // tiles of 16 queries that a warp holds; forward only
	step     int // keys, or queries, that a block takes in at a time
	held     int // tiles of step rows in shared memory
	blocks   int // that a multiprocessor can hold, at least
}

// The sizes of tiles.cu keep a block's shared memory below the 99 KiB that every GPU
// with bf16 has, and its accumulators within 255 registers a thread.
var (
	forwardTiling = map[int]tiling{64: {4, 2, 64, 4, 2}, 128: {4, 2, 64, 4, 2}, 256: {4, 1, 32, 4, 2}}
	dkvTiling     = map[int]tiling{64: {4, 1, 64, 4, 2}, 128: {4, 1, 64, 4, 2}, 256: {4, 1, 32, 4, 2}}
	dqTiling      = map[int]tiling{64: {4, 1, 64, 4, 2}, 128: {4, 1, 64, 4, 2}, 256: {4, 1, 16, 4, 2}}
)

// The sizes of wgmma.cu keep a block's within Hopper's 227 KiB. Its heads are 128 wide.
var (
	forwardWarpgroups = tiling{8, 1, 128, 5, 1}
	dkvWarpgroups     = tiling{8, 1, 64, 6, 1}
	dqWarpgroups      = tiling{8, 1, 128, 5, 1}
)

// tiling is a kernel's on the call's GPU, with the files it is in and what its name
// ends in.
func (c Config) tiling(call *graph.CUDACall, pass string, tiles map[int]tiling, warpgroups tiling) (t tiling, suffix string, files []string) {
	const hopper = 90
	if call.Capability == hopper && c.HeadDim == 128 {
		return warpgroups, "warpgroups", []string{"tiles", "wgmma_instructions", "wgmma", "wgmma_" + pass}
	}
	return tiles[c.HeadDim], "tiles", []string{"tiles", "tiles_" + pass}
}

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

// tilesLaunch is a kernel whose blocks take rows tokens each, and hold ownRows rows
// of them, the steps' rows and floats float32s in shared memory.
func (c Config) tilesLaunch(kernel string, files []string, t tiling, d graph.Dims, heads, rows, ownRows, floats int, args ...any) graph.Launch {
	macros := c.macros(nil, files...)
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

func (c Config) forwardTiles(call *graph.CUDACall) graph.Launch {
	q, k, v, o, lse, d := call.In[0], call.In[1], call.In[2], call.Out[0], call.Out[1], call.Dims
	t, suffix, files := c.tiling(call, "forward", forwardTiling, forwardWarpgroups)
	queries := 16 * t.rowTiles * t.warps
	const log2e = 1.4426950408889634
	return c.tilesLaunch("attention_"+suffix, files, t, d, d["H"], queries, queries, 0,
		q.Address, k.Address, v.Address, o.Address, lse.Address,
		int32(d["T"]), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale()*log2e,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(o.Stride), uint64(lse.Stride))
}

func (c Config) dkvTiles(call *graph.CUDACall, s statistics) graph.Launch {
	q, k, v, do, dk, dv, d := call.In[0], call.In[1], call.In[2], call.In[5], call.Out[1], call.Out[2], call.Dims
	t, suffix, files := c.tiling(call, "dkv", dkvTiling, dkvWarpgroups)
	keys := 16 * t.warps / max(1, c.HeadDim/128)
	return c.tilesLaunch("attention_dkv_"+suffix, files, t, d, d["K"], keys, 2*keys, t.held*t.step,
		q.Address, k.Address, v.Address, do.Address, s.lse2, s.delta, dk.Address, dv.Address,
		int32(d["T"]), int32(s.padded), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale(),
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(do.Stride), uint64(dk.Stride), uint64(dv.Stride))
}

func (c Config) dqTiles(call *graph.CUDACall, s statistics) graph.Launch {
	q, k, v, do, dq, d := call.In[0], call.In[1], call.In[2], call.In[5], call.Out[0], call.Dims
	t, suffix, files := c.tiling(call, "dq", dqTiling, dqWarpgroups)
	queries := 16 * t.warps
	return c.tilesLaunch("attention_dq_"+suffix, files, t, d, d["H"], queries, 2*queries, 0,
		q.Address, k.Address, v.Address, do.Address, s.lse2, s.delta, dq.Address,
		int32(d["T"]), int32(s.padded), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale(),
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(do.Stride), uint64(dq.Stride))
}
