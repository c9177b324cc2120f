package attention

import (
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

// hopper is the compute capability, 9.0, of the GPUs that have warpgroup products (wgmma).
const hopper = 90

// The sizes of wgmma_forward.cu and wgmma_backward.cu, like those of wgmma_gradient.cu, keep a
// block's shared memory within Hopper's 227 KiB.
const (
	forwardStages   = 2    // steps of keys, and of values, in shared memory
	backwardWarps   = 12   // 8 multiply, the others copy
	backwardKeys    = 128  // per block
	backwardTile    = 8192 // elements of dq per tile
	backwardThreads = 32 * backwardWarps
)

// warpgroupTiling is how the forward kernel divides its work.
type warpgroupTiling struct {
	groups    int // warpgroups that multiply, with 64 queries each
	step      int // keys processed at a time
	registers int // registers per multiplying thread
}

// forwardWarpgroupTiling is indexed by head width.
var forwardWarpgroupTiling = map[int]warpgroupTiling{64: {3, 128, 160}, 128: {2, 128, 232}, 256: {2, 64, 232}}

// backwardStages is, by head width, the number of query steps that the backward kernel has in
// shared memory.
var backwardStages = map[int]int{64: 2, 128: 3}

// backwardStep returns the number of queries that the backward kernel processes at a time.
func backwardStep(headDim int) int { return backwardTile / headDim }

func (c Config) warpgroupMacros(file string, warps, step int) map[string]string {
	m := c.macros(nil, "visible", "tiles", "wgmma_instructions", "wgmma", "wgmma_barriers", file)
	m["WARPS"] = strconv.Itoa(warps)
	m["STEP"] = strconv.Itoa(step)
	return m
}

func (c Config) forwardWarpgroups(call pass) []graph.Launch {
	return c.attendWarpgroups(call.CUDACall, call.In[1], call.In[2], call.Out[1], call.Workspace, call.start, c.window(call.Dims["T"]))
}

// attendWarpgroups is the forward pass over keys k and values v. ticket is the address of an int32.
func (c Config) attendWarpgroups(call *graph.CUDACall, k, v, lse graph.DeviceBuffer, ticket, start uint64, window int) []graph.Launch {
	q, o, d := call.In[0], call.Out[0], call.Dims
	t := forwardWarpgroupTiling[c.HeadDim]
	macros := c.warpgroupMacros("wgmma_forward", 4*(t.groups+1), t.step)
	macros["STAGES"], macros["REGISTERS"] = strconv.Itoa(forwardStages), strconv.Itoa(t.registers)
	queries := 64 * t.groups
	tiles := ceil(d["T"], queries) * d["H"] * d["B"]
	blocks := min(tiles, call.Multiprocessors)
	return []graph.Launch{{
		Kernel:  "attention_begin",
		Defines: macros,
		Grid:    [3]int{1, 1, 1},
		Block:   [3]int{1, 1, 1},
		Args:    []any{ticket, int32(blocks)},
	}, {
		Kernel:  "attention_warpgroups",
		Defines: macros,
		Grid:    [3]int{blocks, 1, 1},
		Block:   [3]int{128 * (t.groups + 1), 1, 1},
		Shared:  2*(queries+2*forwardStages*t.step)*c.HeadDim + 8*(2+4*forwardStages) + 8,
		Args: []any{graph.TensorMap{Matrix: q, Box: queries}, graph.TensorMap{Matrix: k, Box: t.step}, graph.TensorMap{Matrix: v, Box: t.step},
			o.Address, lse.Address, ticket, int32(tiles), int32(d["T"]), int32(d["H"]), int32(d["H"] / d["K"]), int32(window), c.scale() * log2e,
			start, c.windowed(), uint64(o.Stride), uint64(lse.Stride)},
	}}
}

// fewestCarried is the number of tokens per row from which warpgroups are faster for sequences that
// continue: on an H100 a call of Samba 1.7B with 512 tokens takes 5.34 ms with them and 5.74 without,
// one with 128 tokens 3.79 and 3.72.
const fewestCarried = 256

// carryWarpgroups is attention_carry for many tokens per row. With a window, a first kernel copies
// the ring and the call's keys and values to the workspace in the order of positions (the line), and
// updates the ring. Without a window, the new keys and values are first written to the cache.
func (c Config) carryWarpgroups(call *graph.CUDACall) []graph.Launch {
	k, v, key, value, position, d := call.In[1], call.In[2], call.In[3], call.In[4], call.In[5].Address, call.Dims
	var list []graph.Launch
	if c.Window == 0 {
		list = append(list, c.keepLaunch(call, k, v, key, value, position))
	} else {
		line := func(address uint64) graph.DeviceBuffer {
			return graph.DeviceBuffer{Address: address, DType: graph.BFloat16, Rows: d["B"] * (d["W"] + d["T"]), Cols: key.Cols, Stride: key.Cols}
		}
		lineKey, lineValue := line(call.Workspace+lineStart), line(call.Workspace+lineStart+uint64(lineBytes(d)))
		list = append(list, c.lineLaunch(call, lineKey.Address, lineValue.Address))
		key, value = lineKey, lineValue
	}
	list = append(list, c.attendWarpgroups(call, key, value, graph.DeviceBuffer{}, call.Workspace, position, d["W"])...)
	for _, l := range list[len(list)-2:] {
		l.Defines["CARRIED"] = "1"
	}
	return list
}

// lineStart is the offset of the lines in the workspace, after the ticket.
const lineStart = 128

// lineBytes is the size of the line of keys, and that of the line of values.
func lineBytes(d graph.Dims) int { return 2 * d["B"] * (d["W"] + d["T"]) * d["K"] * d["D"] }

// lineLaunch copies keys and values to their lines and updates the ring.
func (c Config) lineLaunch(call *graph.CUDACall, lineKey, lineValue uint64) graph.Launch {
	k, v, key, value, d := call.In[1], call.In[2], call.In[3], call.In[4], call.Dims
	const threads, vector = 256, 8
	return graph.Launch{
		Kernel:  "attention_carry_line",
		Defines: c.macros(operands{"Q_T": k, "K_T": k, "V_T": v, "KEY_T": key, "VALUE_T": value, "O_T": k}, "rows", "carry"),
		Grid:    [3]int{ceil(d["B"]*d["W"]*key.Cols/vector, threads), 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args: []any{k.Address, v.Address, key.Address, value.Address, call.In[5].Address, lineKey, lineValue,
			int32(d["B"]), int32(d["T"]), int32(d["W"]), int32(key.Cols),
			uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride)},
	}
}

// sums describes the dq tiles in the workspace that blocks add to: tiles for all pairs of a row and
// a key/value head, or for as many pairs as fit, processed batch by batch. They are followed by
// int32 counters that blocks share: for each tile of all heads, how many blocks have added to it,
// and for each batch, how many blocks have started.
type sums struct {
	group   int // query heads per pair
	tiles   int // per query head
	step    int // queries per tile
	pairs   int // per batch
	batches int
	heads   int // of all pairs
}

const sumsRoom = 256 << 20 // bytes

func sumsOf(d graph.Dims) sums {
	step := backwardStep(d["D"])
	s := sums{group: d["H"] / d["K"], step: step, tiles: padded(d) / step, heads: d["B"] * d["H"]}
	all := d["B"] * d["K"]
	s.pairs = min(all, max(1, sumsRoom/(s.group*s.tiles*4*backwardTile)))
	s.batches = ceil(all, s.pairs)
	return s
}

func (s sums) bytes() int  { return 4 * s.pairs * s.group * s.tiles * backwardTile }
func (s sums) counts() int { return s.heads*s.tiles + s.batches }

// backwardWarpgroups is the backward pass after delta.
func (c Config) backwardWarpgroups(call pass, w workspace, base float64) []graph.Launch {
	q, k, v, do, dq, dk, dv, d := call.In[0], call.In[1], call.In[2], call.In[5], call.Out[0], call.Out[1], call.Out[2], call.Dims
	s := sumsOf(d)
	stages := backwardStages[c.HeadDim]
	macros := c.warpgroupMacros("wgmma_backward", backwardWarps, s.step)
	macros["STAGES"] = strconv.Itoa(stages)
	if base != 0 {
		macros["ROTARY"] = "1"
	}
	tickets := w.counts + uint64(4*s.heads*s.tiles)
	rows := 2*backwardKeys + 2*stages*s.step
	var list []graph.Launch
	for batch := range s.batches {
		first := batch * s.pairs
		pairs := min(s.pairs, d["B"]*d["K"]-first)
		list = append(list, graph.Launch{
			Kernel:  "attention_backward_warpgroups",
			Defines: macros,
			Grid:    [3]int{pairs * ceil(d["T"], backwardKeys), 1, 1},
			Block:   [3]int{backwardThreads, 1, 1},
			Shared:  2*(rows*c.HeadDim+2*backwardKeys*s.step) + 4*(backwardTile+2*stages*s.step) + 8*(1+2*stages) + 8,
			Args: []any{graph.TensorMap{Matrix: q, Box: s.step}, graph.TensorMap{Matrix: k, Box: backwardKeys},
				graph.TensorMap{Matrix: v, Box: backwardKeys}, graph.TensorMap{Matrix: do, Box: s.step},
				w.lse2, w.delta, w.sums, w.counts, tickets + uint64(4*batch), dk.Address, dv.Address,
				int32(d["T"]), int32(padded(d)), int32(first), int32(d["K"]), int32(s.group), int32(c.window(d["T"])), c.scale(),
				call.start, w.frequencies, uint64(dk.Stride), uint64(dv.Stride)},
		}, graph.Launch{
			Kernel:  "attention_dq_round",
			Defines: macros,
			Grid:    [3]int{s.tiles, pairs * s.group, 1},
			Block:   [3]int{2 * s.step, 1, 1},
			Args:    []any{w.sums, dq.Address, int32(d["T"]), int32(d["H"]), int32(first * s.group), c.scale(), w.frequencies, uint64(dq.Stride)},
		})
	}
	return list
}
