package linear_cross_entropy

import (
	_ "embed"
	"strconv"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed linear_cross_entropy.cu
var source string

const (
	// A chunk is as many rows as have chunkBytesCUDA of logits in total, within bounds: each chunk
	// reads and writes dw, so that few large chunks are better.
	chunkBytesCUDA   = 1 << 30
	minChunkRowsCUDA = 128
	maxChunkRowsCUDA = 16384
	// shareBytes is the size of the workspace before the logits, which holds 1/n.
	shareBytes = 256
	// mostHeldCUDA is the largest number of 16-byte vectors of a row that a thread keeps in registers.
	mostHeldCUDA = 8
)

// logitStrideCUDA rounds a row up to whole vectors, and starts each row at a sector.
func logitStrideCUDA(vocab int) int { return (vocab + 63) / 64 * 64 }

// chunkRowsCUDA is the number of rows of each chunk but the last, for logits of a given type.
func chunkRowsCUDA(d graph.Dims, t graph.DType) int {
	n := d["B"] * d["T"]
	most := min(max(chunkBytesCUDA/(logitStrideCUDA(d["V"])*t.Size()), minChunkRowsCUDA), maxChunkRowsCUDA)
	chunks := (n + most - 1) / most
	return min((n+chunks-1)/chunks, most)
}

// workspaceCUDA has room for chunks of either type of logits.
func workspaceCUDA(d graph.Dims) int {
	bytes := func(t graph.DType) int { return chunkRowsCUDA(d, t) * logitStrideCUDA(d["V"]) * t.Size() }
	return shareBytes + max(bytes(graph.Float32), bytes(graph.BFloat16))
}

// trainCUDA stores logits and their gradients in the type of the products' other inputs, as the
// products for dx and dw need them.
func trainCUDA(c *graph.CUDACall) ([]graph.Launch, error) {
	return launches(c, c.In[0].DType, true)
}

func evalCUDA(c *graph.CUDACall) ([]graph.Launch, error) {
	return launches(c, graph.Float32, false)
}

func launches(c *graph.CUDACall, logits graph.DType, gradients bool) ([]graph.Launch, error) {
	x, w, targets, loss, nll := c.In[0], c.In[1], c.In[2], c.Out[0], c.Out[1]
	n, vocab, width := x.Rows, w.Rows, x.Cols
	stride, share, at := logitStrideCUDA(vocab), c.Workspace, c.Workspace+shareBytes
	macros := map[string]string{"LOGIT_T": logits.CType()}
	if gradients {
		macros["GRADIENTS"] = "1"
	}
	kernel := func(name string, blocks, threads int, args ...any) graph.Launch {
		return graph.Launch{Kernel: name, Defines: macros, Grid: [3]int{blocks, 1, 1}, Block: [3]int{threads, 1, 1}, Args: args}
	}
	vector := 16 / logits.Size()
	threads := min(512, (vocab+32*vector-1)/(32*vector)*32)
	if held := (vocab + threads*vector - 1) / (threads * vector); gradients && held <= mostHeldCUDA {
		macros["HELD"] = strconv.Itoa(held)
	}
	counting := kernel("linear_cross_entropy_count", 1, 1024, targets.Address, share, int32(n))
	if len(c.In) > partInput {
		counting = kernel("linear_cross_entropy_part", 1, 32, c.In[partInput].Address, share)
	}
	list := []graph.Launch{counting}
	each := chunkRowsCUDA(c.Dims, logits)
	for first := 0; first < n; first += each {
		rows := min(each, n-first)
		list = append(list,
			graph.Launch{Product: &graph.Product{
				M: rows, N: vocab, K: width, TransB: true,
				A: x.At(first, 0), LDA: x.Stride, TypeA: x.DType,
				B: w.Address, LDB: w.Stride, TypeB: w.DType,
				C: at, LDC: stride, TypeC: logits,
			}},
			kernel("linear_cross_entropy_rows", rows, threads, at, targets.Address+uint64(4*first), nll.Address+uint64(4*first),
				share, uint64(stride), int32(vocab)))
		if !gradients {
			continue
		}
		dx, dw := c.Out[2], c.Out[3]
		add := graph.Product{
			M: vocab, N: width, K: rows, TransA: true,
			A: at, LDA: stride, TypeA: logits,
			B: x.At(first, 0), LDB: x.Stride, TypeB: x.DType,
			C: dw.Address, LDC: dw.Stride, TypeC: dw.DType,
		}
		if first > 0 {
			add.Beta = 1
		}
		list = append(list,
			graph.Launch{Product: &graph.Product{
				M: rows, N: width, K: vocab,
				A: at, LDA: stride, TypeA: logits,
				B: w.Address, LDB: w.Stride, TypeB: w.DType,
				C: dx.At(first, 0), LDC: dx.Stride, TypeC: dx.DType,
			}},
			graph.Launch{Product: &add})
	}
	return append(list, kernel("linear_cross_entropy_mean", 1, 1024, nll.Address, share, loss.Address, int32(n))), nil
}
