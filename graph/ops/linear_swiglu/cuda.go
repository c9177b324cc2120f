package linear_swiglu

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed rows.cu
var rowsSource string

//go:embed tiles.cu
var tilesSource string

var source = "#ifdef TILES_CU\n#line 1 \"tiles.cu\"\n" + tilesSource + "#else\n#line 1 \"rows.cu\"\n" + rowsSource + "#endif\n"

const (
	// hopper is the compute capability, 9.0, that tiles.cu is for.
	hopper = 90
	// The sizes of tiles.cu keep a block's shared memory within Hopper's 227 KiB.
	tile, depth, stages = 128, 64, 4
	// minRows are the rows from which on tiles.cu has work for all multiprocessors.
	minRows = 256
	// minDepth is the K that has time for a tile's activation, beside the products of the next.
	minDepth = 8 * depth
	// maxRows are the rows of which products are made at once without tiles.cu.
	maxRows = 4096
)

func launches(c *graph.CUDACall) ([]graph.Launch, error) {
	if fitsTiles(c) {
		return []graph.Launch{tiles(c)}, nil
	}
	return rows(c), nil
}

// fitsTiles reports whether tiles.cu takes the call's operands.
func fitsTiles(c *graph.CUDACall) bool {
	for _, b := range []graph.DeviceBuffer{c.In[0], c.In[1], c.In[2], c.Out[0]} {
		if b.DType != graph.BFloat16 || b.Address%16 != 0 || b.Stride%8 != 0 {
			return false
		}
	}
	return c.Capability == hopper && c.Out[0].Rows >= minRows && c.In[0].Cols >= minDepth
}

func tiles(c *graph.CUDACall) graph.Launch {
	x, gate, up, y := c.In[0], c.In[1], c.In[2], c.Out[0]
	const group = 8
	clusters := min(c.Multiprocessors/2, ceilDiv(y.Rows, 2*tile)*ceilDiv(y.Cols, tile))
	return graph.Launch{
		Kernel: "linear_swiglu_tiles",
		Defines: map[string]string{"TILES_CU": "1", "ROWS": strconv.Itoa(tile), "COLUMNS": strconv.Itoa(tile), "DEPTH": strconv.Itoa(depth),
			"STAGES": strconv.Itoa(stages), "GROUP": strconv.Itoa(group)},
		Grid:   [3]int{2 * clusters, 1, 1},
		Block:  [3]int{384, 1, 1},
		Shared: stages*3*tile*depth*2 + 2*8*stages + 1024, // the stages begin at a multiple of 1024
		Args: []any{graph.TensorMap{Matrix: x, Box: tile}, graph.TensorMap{Matrix: gate, Box: tile}, graph.TensorMap{Matrix: up, Box: tile},
			y.Address, int32(y.Rows), int32(y.Cols), int32(x.Cols), uint64(y.Stride)},
	}
}

// held is the distance between rows of what the products make, and the bytes of one product in
// float32.
func held(rows, cols int) (stride, bytes int) {
	stride = ceilDiv(cols, 16) * 16
	return stride, 4 * min(rows, maxRows) * stride
}

func cudaWorkspace(d graph.Dims) int {
	_, bytes := held(d["B"]*d["T"], d["M"])
	return 2 * bytes
}

// rows are products of some rows at a time and what is made of them.
func rows(c *graph.CUDACall) []graph.Launch {
	x, gate, up, y := c.In[0], c.In[1], c.In[2], c.Out[0]
	stride, bytes := held(y.Rows, y.Cols)
	var list []graph.Launch
	for first := 0; first < y.Rows; first += maxRows {
		n := min(maxRows, y.Rows-first)
		for i, w := range []graph.DeviceBuffer{gate, up} {
			list = append(list, graph.Launch{Product: &graph.Product{
				M: n, N: w.Rows, K: x.Cols, TransB: true,
				A: x.At(first, 0), LDA: x.Stride, PadA: x.Pad, TypeA: x.DType,
				B: w.Address, LDB: w.Stride, PadB: w.Pad, TypeB: w.DType,
				C: c.Workspace + uint64(i*bytes), LDC: stride, TypeC: y.DType,
			}})
		}
		blocks, threads, across := graph.RowTiles(n, y.Cols)
		list = append(list, graph.Launch{
			Kernel:  "linear_swiglu_gate",
			Defines: map[string]string{"Y_T": y.DType.CType()},
			Grid:    [3]int{blocks, 1, 1},
			Block:   [3]int{threads, 1, 1},
			Args: []any{c.Workspace, c.Workspace + uint64(bytes), y.At(first, 0), uint64(stride), uint64(y.Stride),
				int32(y.Cols), int32(across)},
		})
	}
	return list
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
