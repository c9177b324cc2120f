package selective_scan

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// TestMostStates: the GPU's backward pass refuses more states than it has registers for.
func TestMostStates(t *testing.T) {
	for _, gated := range []bool{true, false} {
		s := backwardSpec(gated)
		for n, refused := range map[int]bool{mostStates: false, mostStates + 1: true} {
			r, err := s.ResolveDims(graph.Dims{"B": 1, "T": 70, "C": 16, "N": n})
			if err != nil {
				t.Fatal(err)
			}
			buffers := func(list []graph.Operand) (all []graph.DeviceBuffer) {
				for _, o := range list {
					all = append(all, graph.DeviceBuffer{Rows: o.Shape.Rows(), Cols: o.Shape.Cols(), Stride: o.Shape.Cols(), DType: graph.Float32})
				}
				return all
			}
			_, err = s.CUDA.Launches(&graph.CUDACall{Dims: r.Dims, In: buffers(r.In), Out: buffers(r.Out), Multiprocessors: 132})
			if (err != nil) != refused || refused && !strings.Contains(err.Error(), "has room for 64") {
				t.Errorf("%d states: %v", n, err)
			}
		}
	}
}
