package dist

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// Single is a run of one process.
type Single struct{}

// Rank implements graph.Comm.
func (Single) Rank() int { return 0 }

// Size implements graph.Comm.
func (Single) Size() int { return 1 }

// AllReduce implements graph.Comm.
func (Single) AllReduce(graph.Vector) error { return nil }

// ReduceScatter implements graph.Comm.
func (Single) ReduceScatter(graph.Vector) error { return nil }

// AllGather implements graph.Comm.
func (Single) AllGather(graph.Vector) error { return nil }

// Broadcast implements graph.Comm.
func (Single) Broadcast(_ graph.Vector, root int) error { return checkRoot(root, 1) }

// Abort implements graph.Comm.
func (Single) Abort(int) {}

// Close implements graph.Comm.
func (Single) Close() error { return nil }

func checkRoot(root, size int) error {
	if root < 0 || root >= size {
		return fmt.Errorf("dist: no process %d among %d", root, size)
	}
	return nil
}

// pieceOf is the length of one of size equal pieces.
func pieceOf(x graph.Vector, size int) (int, error) {
	if x.Elements%size != 0 {
		return 0, fmt.Errorf("dist: %d elements don't divide among %d processes", x.Elements, size)
	}
	return x.Elements / size, nil
}
