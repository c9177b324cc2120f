package selective_scan

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

//go:embed selective_scan.cu
var source string

const cudaThreads = 64

func cudaForward(gated, carry bool) *graph.CUDA {
	return &graph.CUDA{Source: source, Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
		d, in, z := c.Dims, c.In, c.In[0]
		if gated {
			z = in[7]
		}
		var gate, saved, state uint64
		if gated {
			gate = z.Address
		}
		if carry {
			state = in[len(in)-1].Address
		} else {
			saved = c.Out[1].Address
		}
		y := c.Out[0]
		return []graph.Launch{{
			Kernel:  "selective_scan",
			Defines: defines(d, map[string]graph.DeviceBuffer{"U_T": in[0], "DT_T": in[1], "B_T": in[4], "C_T": in[5], "Z_T": z, "Y_T": y}),
			Grid:    [3]int{ceilDiv(d["C"], cudaThreads), d["B"], 1},
			Block:   [3]int{cudaThreads, 1, 1},
			Args: []any{in[0].Address, in[1].Address, in[2].Address, in[3].Address, in[4].Address, in[5].Address, in[6].Address,
				gate, saved, state, y.Address, int32(d["T"]), int32(d["C"]), int32(in[0].Stride), int32(in[1].Stride),
				int32(in[4].Stride), int32(in[5].Stride), int32(z.Stride), int32(y.Stride)},
		}}, nil
	}}
}

func cudaBackward(gated bool) *graph.CUDA {
	return &graph.CUDA{
		Source: source,
		Workspace: func(d graph.Dims) int {
			return 4 * (ceilDiv(d["C"], cudaThreads)*d["B"]*d["T"]*2*d["N"] + d["B"]*(d["N"]+2)*d["C"])
		},
		Launches: func(c *graph.CUDACall) ([]graph.Launch, error) {
			d, in, out := c.Dims, c.In, c.Out
			z, dz := in[0], out[0]
			var gate, gateGrad uint64
			if gated {
				z, dz = in[7], out[7]
				gate, gateGrad = z.Address, dz.Address
			}
			saved, dy := in[len(in)-2], in[len(in)-1]
			slices := ceilDiv(d["C"], cudaThreads)
			parts := c.Workspace
			rows := parts + uint64(4*slices*d["B"]*d["T"]*2*d["N"])
			macros := defines(d, map[string]graph.DeviceBuffer{"U_T": in[0], "DT_T": in[1], "B_T": in[4], "C_T": in[5], "Z_T": z,
				"DY_T": dy, "DU_T": out[0], "DDT_T": out[1], "DB_T": out[4], "DC_T": out[5], "DZ_T": dz})
			return []graph.Launch{{
				Kernel: "selective_scan_backward", Defines: macros,
				Grid:  [3]int{slices, d["B"], 1},
				Block: [3]int{cudaThreads, 1, 1},
				Args: []any{in[0].Address, in[1].Address, in[2].Address, in[3].Address, in[4].Address, in[5].Address, in[6].Address,
					gate, saved.Address, dy.Address, out[0].Address, out[1].Address, gateGrad, parts, rows,
					int32(d["T"]), int32(d["C"]), int32(in[0].Stride), int32(in[1].Stride), int32(in[4].Stride), int32(in[5].Stride),
					int32(z.Stride), int32(dy.Stride), int32(out[0].Stride), int32(out[1].Stride), int32(dz.Stride)},
			}, {
				Kernel: "selective_scan_sum_slices", Defines: macros,
				Grid:  [3]int{ceilDiv(d["B"]*d["T"]*2*d["N"], 256), 1, 1},
				Block: [3]int{256, 1, 1},
				Args: []any{parts, out[4].Address, out[5].Address, int32(slices), int32(d["B"] * d["T"]),
					int32(out[4].Stride), int32(out[5].Stride)},
			}, {
				Kernel: "selective_scan_sum_rows", Defines: macros,
				Grid:  [3]int{ceilDiv((d["N"]+2)*d["C"], 256), 1, 1},
				Block: [3]int{256, 1, 1},
				Args:  []any{rows, out[3].Address, out[6].Address, out[2].Address, int32(d["B"]), int32(d["C"])},
			}}, nil
		},
	}
}

// defines are the macros of the source; types names the operands' types.
func defines(d graph.Dims, types map[string]graph.DeviceBuffer) map[string]string {
	m := map[string]string{"N": strconv.Itoa(d["N"]), "CHUNK": strconv.Itoa(simd.ScanChunk)}
	for name, b := range types {
		m[name] = b.DType.CType()
		if b.DType == graph.BFloat16 {
			m["FAST"] = "1"
		}
	}
	return m
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
