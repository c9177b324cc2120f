package attention

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
)

// TestScratch: the products of smaller blocks need no more scratch than those of the largest block,
// for which the workspace is sized.
func TestScratch(t *testing.T) {
	for _, level := range simd.Levels() {
		restore := simd.Force(level)
		for _, channels := range []int{1, 5, 64, 300} {
			d := graph.Dims{"T": 4096, "D": channels}
			forward, backward := forwardScratch(d), backwardScratch(d)
			for m := 1; m <= queryBlock; m++ {
				for n := 1; n <= keyStep; n++ {
					if need := max(scoresOf(m, n, channels).Workspace(1), valuesOf(m, n, channels).Workspace(1)); need > forward {
						t.Fatalf("%v: %d queries with %d keys of %d channels need %d, more than %d", level, m, n, channels, need, forward)
					}
				}
			}
			for n := 1; n <= gradBlock; n++ {
				for m := 1; m <= gradQueries; m++ {
					need := max(transposedScoresOf(n, m, channels).Workspace(1), keyGradOf(n, m, channels).Workspace(1), queryGradOf(n, m, channels).Workspace(1))
					if need > backward {
						t.Fatalf("%v: %d keys with %d queries of %d channels need %d, more than %d", level, n, m, channels, need, backward)
					}
				}
			}
		}
		restore()
	}
}

// TestVisible counts pairs one by one.
func TestVisible(t *testing.T) {
	for tokens := 1; tokens <= 9; tokens++ {
		for window := 0; window <= 11; window++ {
			pairs := 0
			for i := range tokens {
				for j := range tokens {
					if j <= i && (window == 0 || j > i-window) {
						pairs++
					}
				}
			}
			got := Config{Window: window}.visible(graph.Dims{"B": 2, "H": 3, "T": tokens})
			if got != float64(6*pairs) {
				t.Errorf("%d tokens, window %d: %v pairs, want %d", tokens, window, got, 6*pairs)
			}
		}
	}
}
