package attention

import (
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

func (c Config) carryCUDA() *graph.CUDA {
	return &graph.CUDA{
		Source:   source,
		Launches: c.carryLaunches,
		// Of each part its greatest score, its sum of weights and its o.
		Workspace: func(d graph.Dims) int {
			parts := parts(d)
			if t, ok := carryTiling(d); ok {
				parts = max(parts, tileParts(d, t))
			}
			return 4 * d["B"] * d["T"] * d["H"] * parts * (2 + d["D"])
		},
	}
}

// parts is how many parts a query's keys are cut into: enough for decoding to have
// some thousand warps, none shorter than 32 keys where the ring is full.
func parts(d graph.Dims) int {
	const warps = 4096
	return max(1, min(ceil(warps, d["B"]*d["T"]*d["H"]), d["W"]/32))
}

func (c Config) carryLaunches(call *graph.CUDACall) ([]graph.Launch, error) {
	q, k, v, key, value, position, o := call.In[0], call.In[1], call.In[2], call.In[3], call.In[4], call.In[5], call.Out[0]
	d := call.Dims
	queries := d["B"] * d["T"] * d["H"]
	macros := c.macros(operands{"Q_T": q, "K_T": k, "V_T": v, "KEY_T": key, "VALUE_T": value, "O_T": o}, "rows", "carry")
	windowed := int32(0)
	if c.Window > 0 {
		windowed = 1
	}
	var launches []graph.Launch
	n, kept := parts(d), false
	if t, ok := carryTiling(d); ok && c.kernels(pass{CUDACall: call}, q, k, v, key, value, o) != onRows {
		n, kept = tileParts(d, t), d["T"] == 1
		launches = append(launches, c.carryTiles(call, t, n, windowed))
	} else {
		launches = append(launches, rowsLaunch("attention_carry_parts", macros, queries*n,
			q.Address, k.Address, v.Address, key.Address, value.Address, position.Address, call.Workspace,
			int32(d["B"]), int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(d["H"]/d["K"]), int32(n), c.scale(),
			uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride)))
	}
	if n > 1 || launches[0].Kernel == "attention_carry_parts" {
		launches = append(launches, rowsLaunch("attention_carry_join", macros, queries,
			call.Workspace, position.Address, o.Address,
			int32(d["B"]), int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(n), windowed, uint64(o.Stride)))
	}
	if !kept {
		launches = append(launches, keepLaunch(macros, d, k, v, key, value, position.Address))
	}
	for i := range launches {
		launches[i].Early = d["T"] == 1
	}
	return launches, nil
}

// carryTilings are by the width of heads.
var carryTilings = map[int]tiling{64: {4, 2, 64, 4, 2}, 128: {4, 2, 32, 4, 2}, 256: {4, 1, 32, 4, 2}}

// carryTiling is how tiles_carry.cu cuts up its work: a warp alone where all queries of a
// key head fit in its tile, as in decoding.
func carryTiling(d graph.Dims) (tiling, bool) {
	t, ok := carryTilings[d["D"]]
	if d["T"]*(d["H"]/d["K"]) <= 16 {
		t.warps, t.rowTiles, t.blocks = 1, 1, 6
	}
	return t, ok
}

// tileParts is how many parts keys are cut into, for a GPU to have a few blocks a
// multiprocessor, none shorter than a step where the ring is full.
func tileParts(d graph.Dims, t tiling) int {
	blocks := ceil(d["T"]*(d["H"]/d["K"]), 16*t.rowTiles*t.warps) * d["K"] * d["B"]
	return max(1, min(ceil(132*t.blocks, blocks), d["W"]/t.step))
}

func (c Config) carryTiles(call *graph.CUDACall, t tiling, parts int, windowed int32) graph.Launch {
	q, k, v, key, value, position, o := call.In[0], call.In[1], call.In[2], call.In[3], call.In[4], call.In[5], call.Out[0]
	d := call.Dims
	rows := 16 * t.rowTiles * t.warps
	const log2e = 1.4426950408889634
	l := c.tilesLaunch("attention_carry_tiles", "tiles_carry", t, d, 0, rows, rows, 0,
		q.Address, k.Address, v.Address, key.Address, value.Address, position.Address, o.Address, call.Workspace,
		int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(parts), windowed, c.scale()*log2e,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride), uint64(o.Stride))
	l.Grid = [3]int{ceil(d["T"]*(d["H"]/d["K"]), rows), d["K"] * parts, d["B"]}
	l.Defines["GROUP"] = strconv.Itoa(d["H"] / d["K"])
	if d["T"] == 1 {
		l.Defines["KEEP"] = "1"
	}
	return l
}

// keepLaunch writes the last keys and values to the ring; position 0 is none.
func keepLaunch(macros map[string]string, d graph.Dims, k, v, key, value graph.DeviceBuffer, position uint64) graph.Launch {
	kept := min(d["T"], d["W"])
	return graph.Launch{
		Kernel:  "attention_carry_keep",
		Defines: macros,
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
			macros := c.macros(operands{"Q_T": k, "K_T": k, "V_T": v, "KEY_T": key, "VALUE_T": value, "O_T": k}, "rows", "carry")
			return []graph.Launch{keepLaunch(macros, call.Dims, k, v, key, value, 0)}, nil
		},
	}
}
