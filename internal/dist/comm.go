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

// checkPiece rejects a piece that is not one of size equal pieces of whole.
func checkPiece(whole, piece graph.Vector, size int) error {
	if piece.Elements*size != whole.Elements || piece.DType != whole.DType {
		return fmt.Errorf("dist: %d elements of %v are no piece of %d of %v among %d processes", piece.Elements, piece.DType, whole.Elements, whole.DType, size)
	}
	return nil
}
