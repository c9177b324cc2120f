//go:build linux

package cuda

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed pad.cu
var padSource string

// widen pads K of a product to a multiple of 16 bytes if there is room after the rows of both
// inputs. It also returns the launches that fill this room with zeros, which must run first.
func widen(p graph.Product) (graph.Product, []graph.Launch) {
	const size, granule = 2, tensorBytes / 2 // of bfloat16
	more := (granule - p.K%granule) % granule
	if more == 0 || p.TransA || !p.TransB || p.TypeA != graph.BFloat16 || p.TypeB != graph.BFloat16 || p.PadA < more || p.PadB < more {
		return p, nil
	}
	zeros := func(address uint64, rows, ld int) graph.Launch {
		const threads = 256
		return graph.Launch{Kernel: "zero_columns", Grid: [3]int{(rows + threads - 1) / threads, 1, 1}, Block: [3]int{threads, 1, 1},
			Args: []any{address + uint64(p.K*size), uint64(ld), int32(rows), int32(more)}}
	}
	list := []graph.Launch{zeros(p.A, p.M, p.LDA), zeros(p.B, p.N, p.LDB)}
	p.K += more
	return p, list
}
