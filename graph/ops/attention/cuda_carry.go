package attention

import "github.com/sambatrain/sambatrain/graph"

func (c Config) carryCUDA() *graph.CUDA {
	return &graph.CUDA{
		Source:   source,
		Launches: c.carryLaunches,
		// Of each part its greatest score, its sum of weights and its o.
		Workspace: func(d graph.Dims) int { return 4 * d["B"] * d["T"] * d["H"] * parts(d) * (2 + d["D"]) },
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
	parts, queries := parts(d), d["B"]*d["T"]*d["H"]
	macros := c.macros(operands{"Q_T": q, "K_T": k, "V_T": v, "KEY_T": key, "VALUE_T": value, "O_T": o}, "rows", "carry")
	windowed := int32(0)
	if c.Window > 0 {
		windowed = 1
	}
	return []graph.Launch{
		rowsLaunch("attention_carry_parts", macros, queries*parts,
			q.Address, k.Address, v.Address, key.Address, value.Address, position.Address, call.Workspace,
			int32(d["B"]), int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(d["H"]/d["K"]), int32(parts), c.scale(),
			uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride)),
		rowsLaunch("attention_carry_join", macros, queries,
			call.Workspace, position.Address, o.Address,
			int32(d["B"]), int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(parts), windowed, uint64(o.Stride)),
		keepLaunch(macros, d, k, v, key, value, position.Address),
	}, nil
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
