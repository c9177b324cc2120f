package chunk_attention

import "github.com/sambatrain/sambatrain/graph"

const (
	// block is the number of queries of a task and, in the backward pass, of its keys.
	block = 128
	// keyStep is the number of keys of a product in the forward pass. It bounds the products'
	// scratch memory.
	keyStep = 256
)

func blocks(n int) int { return (n + block - 1) / block }

// rows is consecutive rows of a buffer: row i starts at data[i*stride].
type rows struct {
	data   []float32
	stride int
}

func (r rows) from(i int) rows { return rows{r.data[i*r.stride:], r.stride} }

// at is x from row i on.
func at(x graph.Buffer, i int) rows { return rows{x.F32[i*x.Stride:], x.Stride} }

// reversed sets dst[W-1-n] = src[n]. Reversed biases are in the order of keys: those of a query's
// keys are the last ones.
func reversed(dst, src []float32) {
	for n, x := range src {
		dst[len(src)-1-n] = x
	}
}

// pad keeps the workers' parts on separate cache lines.
func pad(n int) int { return (n + 15) &^ 15 }

// cutter allocates parts of a workspace.
type cutter []float32

func (c *cutter) next(n int) []float32 {
	part := (*c)[:n:n]
	*c = (*c)[n:]
	return part
}
