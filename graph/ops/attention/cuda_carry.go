package attention

import (
	"math"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

func (c Config) carryCUDA() *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Launches: func(call *graph.CUDACall) ([]graph.Launch, error) {
			if c.carriesOnTiles(call) {
				return c.carryTiles(call, 0), nil
			}
			return c.carryRows(call), nil
		},
		// Per part: the maximum logit, the sum of weights, and o. Or: a ticket and the lines of keys
		// and values.
		Workspace: func(d graph.Dims) int {
			parts := parts(d)
			if _, ok := carryTilings[d["D"]]; ok {
				parts = max(parts, tileParts(d, carryTiling(d)))
			}
			bytes := 4 * d["B"] * d["T"] * d["H"] * parts * (2 + d["D"])
			if d["T"] >= fewestCarried {
				bytes = max(bytes, lineStart+2*lineBytes(d))
			}
			return bytes
		},
	}
}

// parts returns the number of parts that a query's keys are cut into: enough for a decode step to
// have a few thousand warps, but no part shorter than 32 keys when the ring is full.
func parts(d graph.Dims) int {
	const warps = 4096
	return max(1, min(ceil(warps, d["B"]*d["T"]*d["H"]), d["W"]/32))
}

// carriesOnTiles reports whether tiles_carry.cu can handle a call.
func (c Config) carriesOnTiles(call *graph.CUDACall) bool {
	operands := append(append([]graph.DeviceBuffer{}, call.In[:5]...), call.Out[0])
	_, ok := carryTilings[c.HeadDim]
	return ok && c.kernels(pass{CUDACall: call}, operands...) != onRows
}

func (c Config) carryRows(call *graph.CUDACall) []graph.Launch {
	q, k, v, key, value, position, o := call.In[0], call.In[1], call.In[2], call.In[3], call.In[4], call.In[5], call.Out[0]
	d, n := call.Dims, parts(call.Dims)
	macros := c.macros(operands{"Q_T": q, "K_T": k, "V_T": v, "KEY_T": key, "VALUE_T": value, "O_T": o}, "rows", "carry")
	return early(d, []graph.Launch{
		rowsLaunch("attention_carry_parts", macros, d["B"]*d["T"]*d["H"]*n,
			q.Address, k.Address, v.Address, key.Address, value.Address, position.Address, call.Workspace,
			int32(d["B"]), int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(d["H"]/d["K"]), int32(n), c.scale(),
			uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride)),
		c.joinLaunch(call, n),
		c.keepLaunch(call, k, v, key, value, position.Address),
	})
}

// early lets the kernels of a decode step (one token) start early.
func early(d graph.Dims, list []graph.Launch) []graph.Launch {
	for i := range list {
		list[i].Early = d["T"] == 1
	}
	return list
}

// carryTilings are indexed by head width.
var carryTilings = map[int]tiling{64: {4, 2, 64, 4, 2}, 128: {4, 2, 32, 4, 2}, 256: {4, 1, 32, 4, 2}}

// carryTiling is the tiling of tiles_carry.cu: a block is a single warp where all queries of a key
// head fit in the warp's tile, as in decoding.
func carryTiling(d graph.Dims) tiling {
	t := carryTilings[d["D"]]
	if d["T"]*(d["H"]/d["K"]) <= 16 {
		t.warps, t.rowTiles, t.blocks = 1, 1, 6
	}
	return t
}

// tileParts returns the number of parts that keys are cut into, so that a GPU has a few blocks per
// SM, all resident at once, and no part is shorter than a step when the ring is full.
func tileParts(d graph.Dims, t tiling) int {
	blocks := ceil(d["T"]*(d["H"]/d["K"]), 16*t.rowTiles*t.warps) * d["K"] * d["B"]
	return max(1, min(132*t.blocks/blocks, d["W"]/t.step))
}

// carryTiles launches the tile kernels. base is the base of the rotation that is applied first to q
// and k of a single token; 0 means none.
func (c Config) carryTiles(call *graph.CUDACall, base float64) []graph.Launch {
	q, k, v, key, value, position, o := call.In[0], call.In[1], call.In[2], call.In[3], call.In[4], call.In[5], call.Out[0]
	d := call.Dims
	if l, ok := c.token(call, base); ok {
		return []graph.Launch{l}
	}
	if call.Capability == hopper && d["T"] >= fewestCarried {
		return c.carryWarpgroups(call)
	}
	t := carryTiling(d)
	n, rows := tileParts(d, t), 16*t.rowTiles*t.warps
	l := c.tilesLaunch("attention_carry_tiles", "tiles_carry", t, d, 0, rows, rows, 0,
		q.Address, k.Address, v.Address, key.Address, value.Address, position.Address, o.Address, call.Workspace, math.Float64bits(math.Log2(base)),
		int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(n), c.windowed(), c.scale()*log2e,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride), uint64(o.Stride))
	l.Grid = [3]int{ceil(d["T"]*(d["H"]/d["K"]), rows), d["K"] * n, d["B"]}
	l.Defines[macro("tiles_queries")] = "1"
	l.Defines["GROUP"] = strconv.Itoa(d["H"] / d["K"])
	list := []graph.Launch{l}
	if n > 1 {
		list = append(list, c.joinLaunch(call, n))
	}
	if d["T"] > 1 {
		return append(list, c.keepLaunch(call, k, v, key, value, position.Address))
	}
	turning(l.Defines, base)["KEEP"] = "1"
	return early(d, list)
}

// joinLaunch combines the n parts of each query.
func (c Config) joinLaunch(call *graph.CUDACall, n int) graph.Launch {
	d, o := call.Dims, call.Out[0]
	joiners := 1 // with few queries there are warps to spare to share their parts
	if d["T"] == 1 {
		joiners = min(16, ceil(n, 4))
	}
	macros := c.macros(operands{"Q_T": o, "K_T": o, "V_T": o, "KEY_T": o, "VALUE_T": o, "O_T": o}, "rows", "carry")
	macros["JOINERS"] = strconv.Itoa(joiners)
	return graph.Launch{
		Kernel:  "attention_carry_join",
		Defines: macros,
		Grid:    [3]int{d["B"] * d["T"] * d["H"], 1, 1},
		Block:   [3]int{32 * joiners, 1, 1},
		Args: []any{call.Workspace, call.In[5].Address, o.Address,
			int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(n), c.windowed(), uint64(o.Stride)},
	}
}

// windowed is 1 if there is a window.
func (c Config) windowed() int32 { return int32(min(c.Window, 1)) }

// keepLaunch writes the last keys and values to the ring. A position of 0 means no positions.
func (c Config) keepLaunch(call *graph.CUDACall, k, v, key, value graph.DeviceBuffer, position uint64) graph.Launch {
	d := call.Dims
	kept := min(d["T"], d["W"])
	return graph.Launch{
		Kernel:  "attention_carry_keep",
		Defines: c.macros(operands{"Q_T": k, "K_T": k, "V_T": v, "KEY_T": key, "VALUE_T": value, "O_T": k}, "rows", "carry"),
		Grid:    [3]int{d["B"] * kept, 1, 1},
		Block:   [3]int{128, 1, 1},
		Args: []any{k.Address, v.Address, key.Address, value.Address, position,
			int32(d["T"]), int32(d["W"]), int32(kept), int32(k.Cols),
			uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride)},
	}
}

func (c Config) keepCUDA() *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Launches: func(call *graph.CUDACall) ([]graph.Launch, error) {
			k, v, key, value := call.In[0], call.In[1], call.In[2], call.In[3]
			return []graph.Launch{c.keepLaunch(call, k, v, key, value, 0)}, nil
		},
	}
}
