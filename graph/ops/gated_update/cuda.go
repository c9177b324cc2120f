package gated_update

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed gated_update.cu
var source string

// launch is a kernel over rows of operands whose types have these macro names. Its arguments are
// the addresses, then the strides.
func launch(kernel string, names []string, operands []graph.DeviceBuffer) []graph.Launch {
	blocks, threads, tiles := graph.RowTiles(operands[0].Rows, operands[0].Cols)
	l := graph.Launch{Kernel: kernel, Defines: map[string]string{}, Grid: [3]int{blocks, 1, 1}, Block: [3]int{threads, 1, 1}}
	for i, o := range operands {
		l.Defines[names[i]] = o.DType.CType()
		l.Args = append(l.Args, o.Address)
	}
	for _, o := range operands {
		l.Args = append(l.Args, uint64(o.Stride))
	}
	l.Args = append(l.Args, int32(operands[0].Cols), int32(tiles))
	return []graph.Launch{l}
}

func cudaForward(c *graph.CUDACall) ([]graph.Launch, error) {
	return launch("gated_update", []string{"X_T", "GATE_T", "H_T", "Y_T"}, append(c.In[:3:3], c.Out[0])), nil
}

func cudaBackward(c *graph.CUDACall) ([]graph.Launch, error) {
	return launch("gated_update_backward", []string{"X_T", "GATE_T", "H_T", "DY_T", "DX_T", "DGATE_T", "DH_T"}, append(c.In[:4:4], c.Out...)), nil
}
