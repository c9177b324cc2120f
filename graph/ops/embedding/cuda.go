package embedding

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed embedding.cu
var source string

// grid gives each block share columns per thread of one row. share is SHARE in the source.
func grid(rows, cols int) (blocks, threads, tiles int) {
	const share = 8
	threads = min(256, ceilDiv(cols, 32*share)*32)
	tiles = ceilDiv(cols, threads*share)
	return rows * tiles, threads, tiles
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func forwardCUDA(c *graph.CUDACall) ([]graph.Launch, error) {
	return lookUp(c.In[0], graph.DeviceBuffer{}, c.In[1], c.Out[0]), nil
}

func nextCUDA(c *graph.CUDACall) ([]graph.Launch, error) {
	return lookUp(c.In[0], c.In[1], c.In[2], c.Out[0]), nil
}

// lookUp replaces tokens below 0 by those of next; next has Address 0 if there is none.
func lookUp(tokens, next, w, x graph.DeviceBuffer) []graph.Launch {
	blocks, threads, tiles := grid(x.Rows, x.Cols)
	return []graph.Launch{{
		Kernel:  "embedding",
		Defines: map[string]string{"W_T": w.DType.CType(), "X_T": x.DType.CType()},
		Grid:    [3]int{blocks, 1, 1},
		Block:   [3]int{threads, 1, 1},
		Args: []any{tokens.Address, next.Address, w.Address, x.Address,
			uint64(w.Stride), uint64(x.Stride), int32(x.Cols), int32(w.Rows), int32(tiles)},
	}}
}

const (
	// sorted is the number of keys that one block sorts, before runs are merged.
	sorted = 2048
	// A block sums one chunk of the sorted tokens. Chunks are short, so that there are enough
	// blocks for the whole GPU, but not many more than enoughChunks, so that the partial sums stay
	// small.
	shortestChunk, longestChunk = 16, 512
	enoughChunks                = 2048
)

// layout is embedding_dw's workspace: offsets in bytes, and sizes.
type layout struct {
	keys                   [2]int // two buffers, between which runs are merged
	starts, partials, size int
	each, chunks           int
}

func newLayout(d graph.Dims) layout {
	tokens := d["B"] * d["T"]
	l := layout{each: shortestChunk}
	for l.each < longestChunk && ceilDiv(tokens, l.each) > enoughChunks {
		l.each *= 2
	}
	l.chunks = ceilDiv(tokens, l.each)
	take := func(bytes int) int {
		at := l.size
		l.size += ceilDiv(bytes, 256) * 256
		return at
	}
	l.keys[0], l.keys[1] = take(8*tokens), take(8*tokens)
	l.starts = take(4 * (d["V"] + 1))
	l.partials = take(4 * 2 * l.chunks * d["D"])
	return l
}

func dwWorkspaceCUDA(d graph.Dims) int { return newLayout(d).size }

func dwCUDA(c *graph.CUDACall) ([]graph.Launch, error) {
	tokens, dx, dw := c.In[0], c.In[1], c.Out[0]
	z := graph.DeviceBuffer{} // what dw starts from
	if len(c.In) > 2 {
		z = c.In[2]
	}
	l, n := newLayout(c.Dims), dx.Rows
	at := func(offset int) uint64 { return c.Workspace + uint64(offset) }
	m := map[string]string{
		"DX_T": dx.DType.CType(), "DW_T": dw.DType.CType(),
		"SORTED": strconv.Itoa(sorted), "MOST": strconv.Itoa(longestChunk),
	}
	kernel := func(name string, blocks, threads int, args ...any) graph.Launch {
		return graph.Launch{Kernel: name, Defines: m, Grid: [3]int{blocks, 1, 1}, Block: [3]int{threads, 1, 1}, Args: args}
	}
	keys, spare := at(l.keys[0]), at(l.keys[1])
	list := []graph.Launch{kernel("embedding_dw_sort", ceilDiv(n, sorted), sorted/2, tokens.Address, keys, int32(n))}
	for run := sorted; run < n; run *= 2 {
		list = append(list, kernel("embedding_dw_merge", ceilDiv(n, 256), 256, keys, spare, int32(n), int32(run)))
		keys, spare = spare, keys
	}
	chunks, threads, tiles := grid(l.chunks, dx.Cols)
	rows, _, _ := grid(dw.Rows, dw.Cols)
	return append(list,
		kernel("embedding_dw_starts", ceilDiv(dw.Rows+1, 256), 256, keys, at(l.starts), int32(n), int32(dw.Rows)),
		kernel("embedding_dw_chunks", chunks, threads, keys, dx.Address, z.Address, dw.Address, at(l.partials),
			uint64(dx.Stride), uint64(z.Stride), uint64(dw.Stride), int32(n), int32(dw.Rows), int32(dx.Cols), int32(l.each), int32(tiles)),
		kernel("embedding_dw_rows", rows, threads, at(l.starts), at(l.partials), z.Address, dw.Address,
			uint64(z.Stride), uint64(dw.Stride), int32(dw.Cols), int32(l.each), int32(tiles))), nil
}
