package embedding_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/graph/ops/embedding"
	"github.com/sambatrain/sambatrain/internal/optest"
)

func TestEmbedding(t *testing.T) { optest.Run(t, embedding.Cases()) }

func TestTokenOutsideVocabulary(t *testing.T) {
	for _, id := range []int32{-1, 4, 1 << 30} {
		want := fmt.Sprintf("token 1 of the batch is id %d, outside the vocabulary of 4", id)
		spec := embedding.Spec()
		panics(t, "cpu", want, spec.CPU(&graph.CPUCall{
			Pool: simd.Serial{},
			In: []graph.Buffer{
				{Rows: 1, Cols: 2, Stride: 2, I32: []int32{3, id}},
				{Rows: 4, Cols: 1, Stride: 1, F32: make([]float32, 4)},
			},
			Out: []graph.Buffer{{Rows: 2, Cols: 1, Stride: 1, F32: make([]float32, 2)}},
		}))
		panics(t, "reference", want, func() {
			tokens := graph.Array{Shape: graph.Shape{1, 2}, Data: []float64{3, float64(id)}}
			spec.Reference(nil, []graph.Array{tokens, graph.NewArray(graph.Shape{4, 1})}, []graph.Array{graph.NewArray(graph.Shape{1, 2, 1})})
		})
	}
}

func panics(t *testing.T, name, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
			t.Errorf("%s: panics with %q, want %q", name, got, want)
		}
	}()
	f()
}
