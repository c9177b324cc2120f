package selective_scan

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// TestForwardTiling: blocks are small where large ones would balance the SMs worse or would be too
// few, and rows are cut only where small blocks are too few as well.
func TestForwardTiling(t *testing.T) {
	for _, c := range []struct {
		rows, channels  int
		block, segments int
	}{
		{8, 3072, 64, 1},
		{4, 4096, 64, 1},
		{4, 4608, 32, 1},
		{2, 4096, 32, 1},
		{1, 4096, 32, 8},
	} {
		got := forwardTiling(graph.Dims{"B": c.rows, "T": 4096, "C": c.channels, "N": 16})
		if got.channels != c.block || got.segments != c.segments {
			t.Errorf("%d rows of %d channels: blocks of %d channels, %d segments; want %d and %d", c.rows, c.channels, got.channels, got.segments, c.block, c.segments)
		}
	}
}
