package chunk_attention

import (
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

// By document, chunks can begin anywhere in a row, and only the GPU knows where. A row's queries
// are processed in blocks, each with the keys of its own block and of as many whole earlier blocks
// as its queries may see; the kernels mask what they don't see.

// mostQueries is the largest number of queries of a block. More of them make larger products, and
// waste more work.
const mostQueries = 1024

// rowBlocks is how a row is divided.
type rowBlocks struct {
	size, before int // a block's queries, and the blocks of keys before its own
	tokens       int
}

func rowBlocksOf(d graph.Dims) rowBlocks {
	size := min(d["W"], d["T"], mostQueries)
	return rowBlocks{size: size, before: ceilDiv(d["W"]-1, size), tokens: d["T"]}
}

// span is some of a row's queries with some of its keys.
type span struct{ query, queries, key, keys int }

// each calls f with each block's queries and all of their keys.
func (b rowBlocks) each(f func(span)) {
	for t := 0; t < b.tokens; t += b.size {
		s := span{query: t, queries: min(b.size, b.tokens-t), key: max(0, t-b.before*b.size)}
		s.keys = t + s.queries - s.key
		f(s)
	}
}

// eachKeys calls f with each block's keys and all of their queries.
func (b rowBlocks) eachKeys(f func(span)) {
	for t := 0; t < b.tokens; t += b.size {
		f(span{query: t, queries: min((b.before+1)*b.size, b.tokens-t), key: t, keys: min(b.size, b.tokens-t)})
	}
}

// scores is the matrix of a block.
func (b rowBlocks) scores() square {
	return square{b.size, ceilDiv(min((b.before+1)*b.size, b.tokens), 8) * 8}
}

// band is a matrix of all queries and keys of a row, of which only the elements that the blocks
// compute exist. Element (i, j) is at i*ld + j: rows overlap, but not where elements exist.
type band struct {
	address uint64
	t       graph.DType
	ld      int
}

func (b rowBlocks) bandLD() int { return ceilDiv(min((b.before+2)*b.size, b.tokens), 8) * 8 }

func (b rowBlocks) bandBytes(t graph.DType) uint64 {
	return uint64(ceilDiv((b.tokens*b.bandLD()+b.tokens)*t.Size(), 64) * 64)
}

// at is a span's part of the band.
func (m band) at(s span) matrix {
	return matrix{m.address + uint64((s.query*m.ld+s.key)*m.t.Size()), m.t, m.ld}
}

func forwardWorkspaceByDocument(d graph.Dims) int {
	return int(2 * rowBlocksOf(d).scores().bytes())
}

func backwardWorkspaceByDocument(d graph.Dims) int {
	b := rowBlocksOf(d)
	return int(2*b.scores().bytes()+2*b.bandBytes(graph.Float32)) + 4*distanceParts*largest(d).n
}

// places are the kernel arguments that determine which keys a block's queries see.
func places(d graph.Dims, start graph.DeviceBuffer, row int, s span) []any {
	return []any{start.Address + uint64(4*(row+s.query)), int32(s.query - s.key), int32(s.query), int32(d["W"])}
}

func cudaForwardByDocument(c *graph.CUDACall) ([]graph.Launch, error) {
	q, k, v, bias, start, o, lse, d := c.In[0], c.In[1], c.In[2], c.In[3], c.In[4], c.Out[0], c.Out[1], c.Dims
	b := rowBlocksOf(d)
	m := map[string]string{"P_T": v.DType.CType(), "BY_DOCUMENT": "1"}
	scores := b.scores().matrix(c.Workspace, graph.Float32)
	p := b.scores().matrix(c.Workspace+b.scores().bytes(), v.DType)
	var list []graph.Launch
	for row := 0; row < d["B"]*d["T"]; row += d["T"] {
		b.each(func(s span) {
			list = append(list,
				product(s.queries, s.keys, d["D"], rowsFrom(q, row+s.query), false, rowsFrom(k, row+s.key), true, scores),
				graph.Launch{
					Kernel: "chunk_attention_softmax", Defines: m,
					Grid:  [3]int{s.queries, 1, 1},
					Block: [3]int{256, 1, 1},
					Args: append([]any{scores.address, bias.Address, p.address, lseAt(lse, row+s.query), int32(s.keys), int32(scores.ld), scale(d)},
						places(d, start, row, s)...),
				},
				product(s.queries, d["C"], s.keys, p, false, rowsFrom(v, row+s.key), false, rowsFrom(o, row+s.query)))
		})
	}
	return list, nil
}

func cudaBackwardByDocument(c *graph.CUDACall) ([]graph.Launch, error) {
	q, k, v, bias, o, lse, do, start, d := c.In[0], c.In[1], c.In[2], c.In[3], c.In[4], c.In[5], c.In[6], c.In[7], c.Dims
	dq, dk, dv, dbias := c.Out[0], c.Out[1], c.Out[2], c.Out[3]
	m := map[string]string{"O_T": o.DType.CType(), "DO_T": do.DType.CType(), "DS_T": v.DType.CType(), "PARTS": strconv.Itoa(distanceParts),
		"BY_DOCUMENT": "1"}
	b, most, at := rowBlocksOf(d), largest(d).n, c.Workspace
	next := func(bytes uint64) uint64 { at += bytes; return at - bytes }
	scores := b.scores().matrix(next(b.scores().bytes()), graph.Float32)
	products := b.scores().matrix(next(b.scores().bytes()), graph.Float32)
	p, ds := band{next(b.bandBytes(v.DType)), v.DType, b.bandLD()}, band{next(b.bandBytes(v.DType)), v.DType, b.bandLD()}
	parts := next(uint64(4 * distanceParts * most))
	begin := int32(1)
	var list []graph.Launch
	for row := 0; row < d["B"]*d["T"]; row += d["T"] {
		b.each(func(s span) {
			list = append(list,
				product(s.queries, s.keys, d["D"], rowsFrom(q, row+s.query), false, rowsFrom(k, row+s.key), true, scores),
				product(s.queries, s.keys, d["C"], rowsFrom(do, row+s.query), false, rowsFrom(v, row+s.key), true, products),
				graph.Launch{
					Kernel: "chunk_attention_softmax_backward", Defines: m,
					Grid:  [3]int{s.queries, 1, 1},
					Block: [3]int{256, 1, 1},
					Args: append([]any{scores.address, products.address, bias.Address, lseAt(lse, row+s.query), o.At(row+s.query, 0), do.At(row+s.query, 0),
						p.at(s).address, ds.at(s).address, uint64(o.Stride), uint64(do.Stride), int32(s.keys), int32(scores.ld), int32(p.ld), int32(d["C"]), scale(d)},
						places(d, start, row, s)...),
				},
				graph.Launch{
					Kernel: "chunk_attention_distances", Defines: m,
					Grid:  [3]int{ceilDiv(most, 128), distanceParts, 1},
					Block: [3]int{128, 1, 1},
					Args:  []any{scores.address, parts, int32(s.queries), int32(scores.ld), int32(s.query - s.key), int32(most), begin},
				},
				product(s.queries, d["D"], s.keys, ds.at(s), false, rowsFrom(k, row+s.key), false, rowsFrom(dq, row+s.query)))
			begin = 0
		})
		b.eachKeys(func(s span) {
			list = append(list,
				product(s.keys, d["C"], s.queries, p.at(s), true, rowsFrom(do, row+s.query), false, rowsFrom(dv, row+s.key)),
				product(s.keys, d["D"], s.queries, ds.at(s), true, rowsFrom(q, row+s.query), false, rowsFrom(dk, row+s.key)))
		})
	}
	return append(list, graph.Launch{
		Kernel: "chunk_attention_dbias", Defines: m,
		Grid:  [3]int{ceilDiv(d["W"], 256), 1, 1},
		Block: [3]int{256, 1, 1},
		Args:  []any{parts, dbias.Address, int32(most), int32(d["W"])},
	}), nil
}
