package sample_test

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
)

// TestLargestVocabularyOfGPU: the kernel that combines the parts of a row has room for 128.
func TestLargestVocabularyOfGPU(t *testing.T) {
	const most = 128 * 4096
	for n, refused := range map[int]bool{most: false, most + 1: true} {
		_, err := sample.Spec(n).CUDA.Launches(&graph.CUDACall{Dims: graph.Dims{"B": 1, "N": n, "V": n}, In: make([]graph.DeviceBuffer, 3)})
		if (err != nil) != refused || refused && !strings.Contains(err.Error(), "at most of 524288") {
			t.Errorf("%d tokens: %v", n, err)
		}
	}
}
