package dist

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

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
