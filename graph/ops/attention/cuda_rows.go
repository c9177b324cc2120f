package attention

import (
	"slices"

	"github.com/sambatrain/sambatrain/graph"
)

// rowsPerBlock is the number of warps per block of rows.cu, called WARPS there.
const rowsPerBlock = 4

// rowsLaunch launches a kernel in which each warp handles one row.
func rowsLaunch(kernel string, macros map[string]string, rows int, args ...any) graph.Launch {
	return graph.Launch{
		Kernel:  kernel,
		Defines: macros,
		Grid:    [3]int{ceil(rows, rowsPerBlock), 1, 1},
		Block:   [3]int{32 * rowsPerBlock, 1, 1},
		Args:    args,
	}
}

func (c Config) forwardRows(call pass) graph.Launch {
	q, k, v, o, lse, d := call.In[0], call.In[1], call.In[2], call.Out[0], call.Out[1], call.Dims
	macros := c.macros(operands{"Q_T": q, "K_T": k, "V_T": v, "O_T": o}, "visible", "rows", "rows_forward")
	return rowsLaunch("attention_rows", macros, d["B"]*d["T"]*d["H"],
		q.Address, k.Address, v.Address, o.Address, lse.Address,
		int32(d["B"]), int32(d["T"]), int32(d["H"]), int32(d["H"]/d["K"]), int32(c.window(d["T"])), c.scale(), call.start,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(o.Stride), uint64(lse.Stride))
}

func (c Config) backwardRows(call pass, w workspace) []graph.Launch {
	q, k, v, lse, do, d := call.In[0], call.In[1], call.In[2], call.In[4], call.In[5], call.Dims
	dq, dk, dv := call.Out[0], call.Out[1], call.Out[2]
	macros := c.macros(operands{"Q_T": q, "K_T": k, "V_T": v, "DO_T": do, "DQ_T": dq, "DK_T": dk, "DV_T": dv}, "visible", "rows", "rows_backward")
	inputs := []any{q.Address, k.Address, v.Address, do.Address, lse.Address, w.delta}
	sizes := []any{int32(d["B"]), int32(d["T"]), int32(padded(d)), int32(d["H"]), int32(d["H"] / d["K"]), int32(c.window(d["T"])), c.scale(), call.start,
		uint64(q.Stride), uint64(k.Stride), uint64(v.Stride), uint64(lse.Stride), uint64(do.Stride)}
	return []graph.Launch{
		rowsLaunch("attention_dkv_rows", macros, d["B"]*d["T"]*d["K"],
			slices.Concat(inputs, []any{dk.Address, dv.Address}, sizes, []any{uint64(dk.Stride), uint64(dv.Stride)})...),
		rowsLaunch("attention_dq_rows", macros, d["B"]*d["T"]*d["H"],
			slices.Concat(inputs, []any{dq.Address}, sizes, []any{uint64(dq.Stride)})...),
	}
}
