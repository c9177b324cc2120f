package attention

import (
	"math"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

// tokenTiling is how token.cu divides its work.
type tokenTiling struct {
	parts  int // blocks that share a head's keys
	warps  int // per block
	step   int // slots that a warp processes at a time
	stages int // steps in flight per warp
}

// tokenTilings are indexed by head width: a block has 64 KB of loads in flight.
var tokenTilings = map[int]tokenTiling{64: {1, 4, 32, 2}, 128: {1, 4, 16, 2}, 256: {1, 2, 16, 2}}

// tokenTilingOf returns a tiling with which all blocks are resident at once, unless there are very
// many heads, and reports whether token.cu is the faster kernel. It is not for long caches if all
// rows together have few key heads, or more than there are SMs.
func tokenTilingOf(d graph.Dims, multiprocessors int) (tokenTiling, bool) {
	const most, few, short = 8, 64, 8192
	t, heads := tokenTilings[d["D"]], d["B"]*d["K"]
	if heads > multiprocessors {
		// An SM has room for three blocks with 64 KB. If there are more, they run in several waves,
		// and shorter blocks keep all SMs busy to the end.
		t.parts = 2
		if heads*t.parts > 3*multiprocessors {
			t.parts = 4
		}
		return t, d["W"] <= short
	}
	if pairs := 2 * heads; d["W"] <= short && pairs <= multiprocessors && 11*pairs >= 10*multiprocessors {
		// Nearly every SM has one block, with 128 KB of loads in flight: with more parts some SMs would
		// have five blocks and others none.
		t.parts, t.stages = 2, 4
		return t, true
	}
	if d["W"] <= short {
		// Small blocks can start while the last blocks of the previous kernel still run.
		for t.parts < most && heads*t.parts <= 2*multiprocessors {
			t.parts *= 2
		}
		if heads*t.parts > multiprocessors {
			t.warps /= 2
		}
		return t, true
	}
	for t.parts < most && heads*t.parts*11 < multiprocessors*10 {
		t.parts *= 2
	}
	// With one block per SM, each with 192 KB of loads in flight, clusters of two can occupy every
	// SM; larger clusters can't.
	if t.parts == 2 && heads*t.parts <= multiprocessors {
		t.warps, t.stages = 2*t.warps, 3
		if t.shared(d) > 224<<10 {
			t.stages--
		}
	}
	return t, heads*t.parts >= few
}

// shared is the number of bytes of the queries, the steps in flight, and the partial results.
func (t tokenTiling) shared(d graph.Dims) int {
	return 2*d["D"]*(16+t.warps*t.stages*2*t.step) + 4*(d["D"]+8)*t.parts*t.warps*ceil(d["H"]/d["K"], t.parts)
}

// token returns the launch of token.cu, for the calls that it supports.
func (c Config) token(call *graph.CUDACall, base float64) (graph.Launch, bool) {
	q, k, v, key, value, position, o := call.In[0], call.In[1], call.In[2], call.In[3], call.In[4], call.In[5], call.Out[0]
	d, group := call.Dims, c.Heads/c.KVHeads
	t, ok := tokenTilingOf(d, call.Multiprocessors)
	if !ok || call.Capability != hopper || d["T"] > 1 || group > 16 {
		return graph.Launch{}, false
	}
	macros := c.macros(nil, "tiles", "tiles_queries", "token")
	for name, n := range map[string]int{"PARTS": t.parts, "WARPS": t.warps, "STEP": t.step, "STAGES": t.stages, "GROUP": group, "ROW_TILES": 1} {
		macros[name] = strconv.Itoa(n)
	}
	return graph.Launch{
		Kernel:  "attention_token",
		Defines: turning(macros, base),
		Grid:    [3]int{t.parts, d["K"], d["B"]},
		Block:   [3]int{32 * t.warps, 1, 1},
		Shared:  t.shared(d),
		Early:   true,
		Args: []any{q.Address, k.Address, v.Address, key.Address, value.Address, position.Address, o.Address, math.Float64bits(math.Log2(base)),
			int32(d["W"]), c.windowed(), c.scale() * log2e,
			uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride), uint64(o.Stride)},
	}, true
}

// turning adds the macros of turning.cu to a kernel's macros if base is not 0.
func turning(macros map[string]string, base float64) map[string]string {
	if base > 0 {
		macros["ROTARY"], macros[macro("turning")] = "1", "1"
	}
	return macros
}
