package chunk_attention

import (
	_ "embed"
	"math"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed chunk_attention.cu
var source string

// distanceParts is the number of partial sums of each distance's dbias, PARTS in the source.
const distanceParts = 16

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func scale(d graph.Dims) float32 { return float32(1 / math.Sqrt(float64(d["D"]))) }

// square is a chunk's matrix of queries and keys: n of each, in rows ld apart.
type square struct{ n, ld int }

func newSquare(n int) square { return square{n, ceilDiv(n, 8) * 8} }

// bytes is the size of a matrix of scores in float32.
func (s square) bytes() uint64 { return uint64(4 * s.n * s.ld) }

// largest is the matrix of a whole chunk.
func largest(d graph.Dims) square { return newSquare(min(d["W"], d["T"])) }

// matrix is an input or result of a chunk's products.
type matrix struct {
	address uint64
	t       graph.DType
	ld      int
}

func (s square) matrix(address uint64, t graph.DType) matrix { return matrix{address, t, s.ld} }

// rowsFrom is the rows of a tensor from one on.
func rowsFrom(b graph.DeviceBuffer, row int) matrix { return matrix{b.At(row, 0), b.DType, b.Stride} }

// product is c[m n] = op(a)[m k] op(b)[k n].
func product(m, n, k int, a matrix, transA bool, b matrix, transB bool, c matrix) graph.Launch {
	return graph.Launch{Product: &graph.Product{M: m, N: n, K: k, TransA: transA, TransB: transB,
		A: a.address, LDA: a.ld, TypeA: a.t, B: b.address, LDB: b.ld, TypeB: b.t, C: c.address, LDC: c.ld, TypeC: c.t}}
}

// chunksOf calls f with each chunk's first row in the tensors, and its length.
func chunksOf(d graph.Dims, f func(row, n int)) {
	for b := range d["B"] {
		for t := 0; t < d["T"]; t += d["W"] {
			f(b*d["T"]+t, min(d["W"], d["T"]-t))
		}
	}
}

// lseAt is the address of a row's lse, in [B T] contiguous float32 numbers.
func lseAt(lse graph.DeviceBuffer, row int) uint64 { return lse.Address + uint64(4*row) }

// A matrix product computes all scores of a chunk, including those of keys that a query does not
// see: on a GPU wasting half of a product is cheaper than a kernel of our own.

func forwardWorkspaceCUDA(d graph.Dims) int {
	return int(2 * largest(d).bytes())
}

func cudaForward(c *graph.CUDACall) ([]graph.Launch, error) {
	q, k, v, bias, o, lse, d := c.In[0], c.In[1], c.In[2], c.In[3], c.Out[0], c.Out[1], c.Dims
	weights := c.Workspace + largest(d).bytes()
	var list []graph.Launch
	chunksOf(d, func(row, n int) {
		s := newSquare(n)
		scores, p := s.matrix(c.Workspace, graph.Float32), s.matrix(weights, v.DType)
		list = append(list,
			product(n, n, d["D"], rowsFrom(q, row), false, rowsFrom(k, row), true, scores),
			graph.Launch{
				Kernel:  "chunk_attention_softmax",
				Defines: map[string]string{"P_T": v.DType.CType()},
				Grid:    [3]int{n, 1, 1},
				Block:   [3]int{256, 1, 1},
				Args: []any{scores.address, bias.Address, p.address, lseAt(lse, row), int32(n), int32(s.ld), scale(d),
					uint64(0), int32(0), int32(0), int32(0)},
			},
			product(n, d["C"], n, p, false, rowsFrom(v, row), false, rowsFrom(o, row)))
	})
	return list, nil
}

func backwardWorkspaceCUDA(d graph.Dims) int {
	return int(4*largest(d).bytes()) + 4*distanceParts*largest(d).n
}

func cudaBackward(c *graph.CUDACall) ([]graph.Launch, error) {
	q, k, v, bias, o, lse, do, d := c.In[0], c.In[1], c.In[2], c.In[3], c.In[4], c.In[5], c.In[6], c.Dims
	dq, dk, dv, dbias := c.Out[0], c.Out[1], c.Out[2], c.Out[3]
	m := map[string]string{"O_T": o.DType.CType(), "DO_T": do.DType.CType(), "DS_T": v.DType.CType(), "PARTS": strconv.Itoa(distanceParts)}
	whole := largest(d)
	at := func(i int) uint64 { return c.Workspace + uint64(i)*whole.bytes() }
	parts := at(4)
	var list []graph.Launch
	chunksOf(d, func(row, n int) {
		s, begin := newSquare(n), int32(0)
		if row == 0 {
			begin = 1
		}
		scores, products := s.matrix(at(0), graph.Float32), s.matrix(at(1), graph.Float32)
		p, ds := s.matrix(at(2), v.DType), s.matrix(at(3), v.DType)
		list = append(list,
			product(n, n, d["D"], rowsFrom(q, row), false, rowsFrom(k, row), true, scores),
			product(n, n, d["C"], rowsFrom(do, row), false, rowsFrom(v, row), true, products),
			graph.Launch{
				Kernel: "chunk_attention_softmax_backward", Defines: m,
				Grid:  [3]int{n, 1, 1},
				Block: [3]int{256, 1, 1},
				Args: []any{scores.address, products.address, bias.Address, lseAt(lse, row), o.At(row, 0), do.At(row, 0), p.address, ds.address,
					uint64(o.Stride), uint64(do.Stride), int32(n), int32(s.ld), int32(s.ld), int32(d["C"]), scale(d),
					uint64(0), int32(0), int32(0), int32(0)},
			},
			graph.Launch{
				Kernel: "chunk_attention_distances", Defines: m,
				Grid:  [3]int{ceilDiv(whole.n, 128), distanceParts, 1},
				Block: [3]int{128, 1, 1},
				Args:  []any{scores.address, parts, int32(n), int32(s.ld), int32(0), int32(whole.n), begin},
			},
			product(n, d["C"], n, p, true, rowsFrom(do, row), false, rowsFrom(dv, row)),
			product(n, d["D"], n, ds, false, rowsFrom(k, row), false, rowsFrom(dq, row)),
			product(n, d["D"], n, ds, true, rowsFrom(q, row), false, rowsFrom(dk, row)))
	})
	return append(list, graph.Launch{
		Kernel: "chunk_attention_dbias", Defines: m,
		Grid:  [3]int{ceilDiv(d["W"], 256), 1, 1},
		Block: [3]int{256, 1, 1},
		Args:  []any{parts, dbias.Address, int32(whole.n), int32(d["W"])},
	}), nil
}

// keysOfBlock is the number of keys per block of chunk_attention_carry_scores.
const keysOfBlock = 64

func carryWorkspaceCUDA(d graph.Dims) int { return 4 * d["B"] * d["T"] * d["W"] }

func cudaCarry(c *graph.CUDACall) ([]graph.Launch, error) {
	q, k, v, bias, key, value, position, o, d := c.In[0], c.In[1], c.In[2], c.In[3], c.In[4], c.In[5], c.In[6], c.Out[0], c.Dims
	m := map[string]string{"Q_T": q.DType.CType(), "K_T": k.DType.CType(), "V_T": v.DType.CType(),
		"KEY_T": key.DType.CType(), "VALUE_T": value.DType.CType(), "O_T": o.DType.CType()}
	tokens, slots, kept := int32(d["T"]), int32(d["W"]), min(d["T"], d["W"])
	return []graph.Launch{{
		Kernel: "chunk_attention_carry_scores", Defines: m, Early: true,
		Grid:  [3]int{q.Rows, ceilDiv(d["W"], keysOfBlock), 1},
		Block: [3]int{256, 1, 1},
		Args: []any{q.Address, k.Address, key.Address, bias.Address, position.Address, c.Workspace, tokens, slots, int32(d["D"]), scale(d),
			uint64(q.Stride), uint64(k.Stride), uint64(key.Stride)},
	}, {
		Kernel: "chunk_attention_carry", Defines: m, Early: true,
		Grid:  [3]int{q.Rows, ceilDiv(d["C"], 32), 1},
		Block: [3]int{256, 1, 1},
		Args: []any{v.Address, value.Address, c.Workspace, position.Address, o.Address, tokens, slots, int32(d["C"]),
			uint64(v.Stride), uint64(value.Stride), uint64(o.Stride)},
	}, {
		Kernel: "chunk_attention_keep", Defines: m, Early: true,
		Grid:  [3]int{d["B"] * kept, 1, 1},
		Block: [3]int{128, 1, 1},
		Args: []any{k.Address, v.Address, key.Address, value.Address, position.Address, tokens, slots, int32(kept), int32(d["D"]), int32(d["C"]),
			uint64(k.Stride), uint64(v.Stride), uint64(key.Stride), uint64(value.Stride)},
	}}, nil
}
