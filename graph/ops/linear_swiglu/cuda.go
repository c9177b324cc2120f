package linear_swiglu

import (
	_ "embed"
	"maps"
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
	// With these sizes of tiles.cu a block's shared memory is within Hopper's 227 KiB.
	tile, depth, stages = 128, 64, 4
	// partRows is the number of rows of a part: rows of 64 columns that pass through shared memory
	// together.
	partRows = 8
	// minRows is the number of rows from which tiles.cu has work for all SMs.
	minRows = 256
	// minDepth is the K from which the epilogue of a tile is hidden by the products of the next
	// one; the gradient's takes twice as long.
	minDepth = 8 * depth
	// maxRows is the largest number of rows that are processed at once without tiles.cu.
	maxRows = 4096
)

func launches(c *graph.CUDACall) ([]graph.Launch, error) {
	if fitsTiles(c, minDepth) {
		return []graph.Launch{forwardTiles(c, nil)}, nil
	}
	return rows(c), nil
}

func keptLaunches(c *graph.CUDACall) ([]graph.Launch, error) {
	if fitsTiles(c, minDepth) {
		return []graph.Launch{forwardTiles(c, map[string]string{"KEEP": "1"})}, nil
	}
	x, y := c.In[0], c.Out[0]
	var list []graph.Launch
	for i, w := range c.In[1:3] {
		list = append(list, product(x, w, true, 0, x.Rows, c.Out[1+i]))
	}
	return append(list, gate(c.Out[1], c.Out[2], y)), nil
}

func backwardLaunches(c *graph.CUDACall) ([]graph.Launch, error) {
	if fitsTiles(c, 2*minDepth) {
		return []graph.Launch{backwardTiles(c)}, nil
	}
	return backwardRows(c), nil
}

// fitsTiles reports whether tiles.cu supports the call's operands.
func fitsTiles(c *graph.CUDACall, least int) bool {
	for _, list := range [][]graph.DeviceBuffer{c.In, c.Out} {
		for _, b := range list {
			if b.DType != graph.BFloat16 || b.Address%16 != 0 || b.Stride%8 != 0 {
				return false
			}
		}
	}
	for _, b := range c.Out {
		if vectors(b).Cols > b.Cols && b.Stride > vectors(b).Cols {
			return false
		}
	}
	return c.Capability == hopper && c.Out[0].Rows >= minRows && c.In[0].Cols >= least
}

// vectors is an output whose columns are a multiple of 16 bytes, without which a TMA store is an
// illegal instruction. The columns that it has in addition are padding, and get zeros.
func vectors(b graph.DeviceBuffer) graph.DeviceBuffer {
	b.Cols = ceilDiv(b.Cols, 8) * 8
	return b
}

// tiles returns a launch of tiles.cu that computes the outputs in tiles of cols columns. A kernel
// takes tensor maps of the products' factors, of other tensors and of the outputs, and the sizes.
// Each warp has `parts` parts and `barriers` barriers in shared memory.
func tiles(c *graph.CUDACall, kernel string, cols, parts, barriers int, defines map[string]string, factors []graph.TensorMap, others ...graph.DeviceBuffer) graph.Launch {
	const group, warps = 8, 8
	y := c.Out[0]
	l := graph.Launch{
		Kernel: kernel,
		Defines: map[string]string{"TILES_CU": "1", "ROWS": strconv.Itoa(tile), "DEPTH": strconv.Itoa(depth),
			"STAGES": strconv.Itoa(stages), "GROUP": strconv.Itoa(group)},
		Grid:  [3]int{2 * min(c.Multiprocessors/2, ceilDiv(y.Rows, 2*tile)*ceilDiv(y.Cols, cols)), 1, 1},
		Block: [3]int{384, 1, 1},
		// The stages are aligned to 1024 bytes.
		Shared: 1024 + stages*3*tile*depth*2 + warps*parts*partRows*64*2 + 8*(2*stages+warps*barriers),
	}
	maps.Copy(l.Defines, defines)
	for _, m := range factors {
		l.Args = append(l.Args, m)
	}
	for _, t := range others {
		l.Args = append(l.Args, graph.TensorMap{Matrix: t, Box: partRows})
	}
	for _, t := range c.Out {
		l.Args = append(l.Args, graph.TensorMap{Matrix: vectors(t), Box: partRows})
	}
	l.Args = append(l.Args, int32(y.Rows), int32(y.Cols), int32(c.In[0].Cols))
	return l
}

func forwardTiles(c *graph.CUDACall, defines map[string]string) graph.Launch {
	var list []graph.TensorMap
	for _, in := range c.In {
		list = append(list, graph.TensorMap{Matrix: in, Box: tile})
	}
	return tiles(c, "linear_swiglu_tiles", tile, len(c.Out), 0, defines, list)
}

func backwardTiles(c *graph.CUDACall) graph.Launch {
	list := []graph.TensorMap{{Matrix: c.In[0], Box: tile}, {Matrix: c.In[1], Box: depth}}
	return tiles(c, "linear_swiglu_backward_tiles", 2*tile, 4, 2, map[string]string{"BACKWARD": "1"}, list, c.In[2], c.In[3])
}

// product is n rows of x, starting at first, times w, or its transpose, to the first rows of a
// tensor.
func product(x, w graph.DeviceBuffer, transposed bool, first, n int, to graph.DeviceBuffer) graph.Launch {
	cols := w.Cols
	if transposed {
		cols = w.Rows
	}
	p := &graph.Product{
		M: n, N: cols, K: x.Cols, TransB: transposed,
		A: x.At(first, 0), LDA: x.Stride, TypeA: x.DType,
		B: w.Address, LDB: w.Stride, TypeB: w.DType,
		C: to.Address, LDC: to.Stride, TypeC: to.DType,
	}
	if transposed {
		p.PadA, p.PadB = x.Pad, w.Pad
	}
	return graph.Launch{Product: p}
}

// held is a tensor in the workspace, after n others, with some of the rows at a time.
func held(c *graph.CUDACall, n int, like graph.DeviceBuffer) graph.DeviceBuffer {
	like.Rows, like.Stride, like.Pad = min(like.Rows, maxRows), ceilDiv(like.Cols, 16)*16, 0
	like.Address = c.Workspace + uint64(n*like.Rows*like.Stride*like.DType.Size())
	return like
}

// workspaceOf is the size of n such tensors [B T M] in float32, in bytes.
func workspaceOf(n int) func(d graph.Dims) int {
	return func(d graph.Dims) int { return n * 4 * min(d["B"]*d["T"], maxRows) * ceilDiv(d["M"], 16) * 16 }
}

// rows are the products of some rows at a time, each followed by the activation.
func rows(c *graph.CUDACall) []graph.Launch {
	x, y := c.In[0], c.Out[0]
	var list []graph.Launch
	for first := 0; first < y.Rows; first += maxRows {
		n := min(maxRows, y.Rows-first)
		g, u := held(c, 0, y), held(c, 1, y)
		list = append(list, product(x, c.In[1], true, first, n, g), product(x, c.In[2], true, first, n, u), gate(g, u, part(y, first, n)))
	}
	return list
}

func backwardRows(c *graph.CUDACall) []graph.Launch {
	dgate, dup := c.Out[0], c.Out[1]
	var list []graph.Launch
	for first := 0; first < dgate.Rows; first += maxRows {
		n := min(maxRows, dgate.Rows-first)
		dy := held(c, 0, dgate)
		list = append(list, product(c.In[0], c.In[1], false, first, n, dy),
			elementwise("linear_swiglu_backward_gate", dy.DType, part(c.In[2], first, n), part(c.In[3], first, n), dy, part(dgate, first, n), part(dup, first, n)))
	}
	return list
}

// part is n rows of a tensor.
func part(b graph.DeviceBuffer, first, n int) graph.DeviceBuffer {
	b.Address, b.Rows = b.At(first, 0), n
	return b
}

func gate(g, u, y graph.DeviceBuffer) graph.Launch {
	return elementwise("linear_swiglu_gate", y.DType, g, u, y)
}

// elementwise is a launch of rows.cu, for tensors with the rows and columns of the last one.
func elementwise(kernel string, t graph.DType, list ...graph.DeviceBuffer) graph.Launch {
	last := list[len(list)-1]
	blocks, threads, across := graph.RowTiles(last.Rows, last.Cols)
	l := graph.Launch{Kernel: kernel, Defines: map[string]string{"Y_T": t.CType()}, Grid: [3]int{blocks, 1, 1}, Block: [3]int{threads, 1, 1}}
	for _, b := range list {
		l.Args = append(l.Args, b.Address, uint64(b.Stride))
	}
	l.Args = append(l.Args, int32(last.Cols), int32(across))
	return l
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }
