package attention

import (
	_ "embed"
	"math"
	"slices"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

var (
	//go:embed delta.cu
	deltaSource string
	//go:embed rows.cu
	rowsSource string
	//go:embed rows_forward.cu
	rowsForward string
	//go:embed rows_backward.cu
	rowsBackward string
	//go:embed carry.cu
	carrySource string
)

// rowsPerBlock is the warps of a block of rows.cu, WARPS there.
const rowsPerBlock = 4

func blocks(n, perBlock int) [3]int { return [3]int{(n + perBlock - 1) / perBlock, 1, 1} }

// defines are the head width and the operands' types, by their names in the source.
func (c Config) defines(types map[string]graph.DeviceBuffer) map[string]string {
	m := map[string]string{"HEAD_DIM": strconv.Itoa(c.HeadDim)}
	for name, b := range types {
		m[name] = b.DType.CType()
	}
	return m
}

func (c Config) scale() float32 { return float32(1 / math.Sqrt(float64(c.HeadDim))) }

func (c Config) cuda() *graph.CUDA {
	return &graph.CUDA{Source: rowsSource + rowsForward, Launches: c.forwardLaunches}
}

func (c Config) forwardLaunches(call *graph.CUDACall) ([]graph.Launch, error) {
	return []graph.Launch{c.forwardRows(call)}, nil
}

func (c Config) forwardRows(call *graph.CUDACall) graph.Launch {
	q, k, v, o, lse, d := call.In[0], call.In[1], call.In[2], call.Out[0], call.Out[1], call.Dims
	return graph.Launch{
		Kernel:  "attention_rows",
		Defines: c.defines(map[string]graph.DeviceBuffer{"Q_T": q, "K_T": k, "V_T": v, "O_T": o}),
		Grid:    blocks(d["B"]*d["T"]*d["H"], rowsPerBlock),
		Block:   [3]int{32 * rowsPerBlock, 1, 1},
		Args: []any{q.Address, k.Address, v.Address, o.Address, lse.Address,
			int32(d["B"]), int32(d["T"]), int32(d["H"]), int32(d["H"] / d["K"]), int32(c.window(d["T"])), c.scale(),
			uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(o.Stride), uint64(lse.Stride)},
	}
}

func (c Config) backwardCUDA() *graph.CUDA {
	return &graph.CUDA{
		Source:   deltaSource + rowsSource + rowsBackward,
		Launches: c.backwardLaunches,
		Workspace: func(d graph.Dims) int {
			return 2 * 4 * d["B"] * d["H"] * padded(d)
		},
	}
}

// padded is T in whole tiles of queries.
func padded(d graph.Dims) int {
	const tile = 128
	return (d["T"] + tile - 1) / tile * tile
}

func (c Config) backwardLaunches(call *graph.CUDACall) ([]graph.Launch, error) {
	q, k, v, o, lse, do := call.In[0], call.In[1], call.In[2], call.In[3], call.In[4], call.In[5]
	dq, dk, dv, d := call.Out[0], call.Out[1], call.Out[2], call.Dims
	delta := call.Workspace
	lse2 := delta + uint64(4*d["B"]*d["H"]*padded(d))
	defines := c.defines(map[string]graph.DeviceBuffer{"Q_T": q, "K_T": k, "V_T": v, "O_T": o, "DO_T": do, "DQ_T": dq, "DK_T": dk, "DV_T": dv})
	defines["WIDTH"] = strconv.Itoa(width(c.HeadDim, o, do))
	launches := []graph.Launch{{
		Kernel:  "attention_delta",
		Defines: defines,
		Grid:    blocks(d["B"]*padded(d)*d["H"], rowsPerBlock),
		Block:   [3]int{32 * rowsPerBlock, 1, 1},
		Args: []any{o.Address, do.Address, lse.Address, delta, lse2,
			int32(d["B"]), int32(d["T"]), int32(padded(d)), int32(d["H"]), uint64(o.Stride), uint64(lse.Stride), uint64(do.Stride)},
	}}
	sizes := []any{int32(d["B"]), int32(d["T"]), int32(padded(d)), int32(d["H"]), int32(d["H"] / d["K"]), int32(c.window(d["T"])), c.scale(),
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(lse.Stride), uint64(do.Stride)}
	inputs := []any{q.Address, k.Address, v.Address, do.Address, lse.Address, delta}
	return append(launches, graph.Launch{
		Kernel:  "attention_dkv_rows",
		Defines: defines,
		Grid:    blocks(d["B"]*d["T"]*d["K"], rowsPerBlock),
		Block:   [3]int{32 * rowsPerBlock, 1, 1},
		Args:    slices.Concat(inputs, []any{dk.Address, dv.Address}, sizes, []any{uint64(dk.Stride), uint64(dv.Stride)}),
	}, graph.Launch{
		Kernel:  "attention_dq_rows",
		Defines: defines,
		Grid:    blocks(d["B"]*d["T"]*d["H"], rowsPerBlock),
		Block:   [3]int{32 * rowsPerBlock, 1, 1},
		Args:    slices.Concat(inputs, []any{dq.Address}, sizes, []any{uint64(dq.Stride)}),
	}), nil
}

func (c Config) carryCUDA() *graph.CUDA {
	return &graph.CUDA{
		Source:   rowsSource + carrySource,
		Launches: c.carryLaunches,
		Workspace: func(d graph.Dims) int {
			return 4 * d["B"] * d["T"] * d["H"] * splits(d) * (d["D"] + 2)
		},
	}
}

// splits is the parts that a query's keys are cut into: enough for decoding to have
// some thousand warps, none shorter than 32 keys of a full ring.
func splits(d graph.Dims) int {
	const warps = 4096
	queries := d["B"] * d["T"] * d["H"]
	return max(1, min((warps+queries-1)/queries, d["W"]/32))
}

func (c Config) carryLaunches(call *graph.CUDACall) ([]graph.Launch, error) {
	q, k, v, key, value, position, o := call.In[0], call.In[1], call.In[2], call.In[3], call.In[4], call.In[5], call.Out[0]
	d, parts := call.Dims, splits(call.Dims)
	queries, kept := d["B"]*d["T"]*d["H"], min(d["T"], d["W"])
	defines := c.defines(map[string]graph.DeviceBuffer{"Q_T": q, "K_T": k, "V_T": v, "KEY_T": key, "VALUE_T": value, "O_T": o})
	windowed := int32(0)
	if c.Window > 0 {
		windowed = 1
	}
	return []graph.Launch{{
		Kernel:  "attention_carry_parts",
		Defines: defines,
		Grid:    blocks(queries*parts, rowsPerBlock),
		Block:   [3]int{32 * rowsPerBlock, 1, 1},
		Args: []any{q.Address, k.Address, v.Address, key.Address, value.Address, position.Address, call.Workspace,
			int32(d["B"]), int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(d["H"] / d["K"]), int32(parts), c.scale(),
			uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride)},
	}, {
		Kernel:  "attention_carry_join",
		Defines: defines,
		Grid:    blocks(queries, rowsPerBlock),
		Block:   [3]int{32 * rowsPerBlock, 1, 1},
		Args: []any{call.Workspace, position.Address, o.Address,
			int32(d["B"]), int32(d["T"]), int32(d["W"]), int32(d["H"]), int32(parts), windowed, uint64(o.Stride)},
	}, {
		Kernel:  "attention_carry_keep",
		Defines: defines,
		Grid:    [3]int{d["B"] * kept, 1, 1},
		Block:   [3]int{128, 1, 1},
		Args: []any{k.Address, v.Address, key.Address, value.Address, position.Address,
			int32(d["T"]), int32(d["W"]), int32(kept), int32(k.Cols),
			uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride)},
	}}, nil
}

// width is how many channels of a head can be moved at once: 16 bytes of the widest
// operand, or 1 where these aren't aligned.
func width(headDim int, operands ...graph.DeviceBuffer) int {
	n := 8
	for _, o := range operands {
		n = min(n, 16/o.DType.Size())
	}
	for _, o := range operands {
		bytes := n * o.DType.Size()
		if headDim%n != 0 || o.Stride%n != 0 || o.Address%uint64(bytes) != 0 {
			return 1
		}
	}
	return n
}
