package sample

import (
	"math/rand/v2"

	"github.com/sambatrain/sambatrain/graph"
)

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	all := []Settings{
		{Temperature: 0, TopP: 1}, {Temperature: 0.75, TopP: 1}, {Temperature: 30, TopP: 1}, {Temperature: 0.75, TopP: 0.875},
		{Temperature: 3, TopP: 0.9999}, {Temperature: 1, TopK: 40, TopP: 1}, {Temperature: 2, TopK: 2000, TopP: 0.75},
		{Temperature: 1, TopK: 1, TopP: 1}, {Temperature: 1, TopK: 1 << 30, TopP: 1}, {Temperature: 1, TopP: 1e-9}, {Temperature: 1e-300, TopP: 1},
	}
	drawn := func(list ...Settings) map[string]graph.Fill {
		return map[string]graph.Fill{
			"scores": func(r *rand.Rand, a graph.Array) {
				for i := range a.Data {
					a.Data[i] = 3 * r.NormFloat64()
				}
			},
			"settings": func(r *rand.Rand, a graph.Array) {
				words := make([]int32, Words)
				for b := range a.Shape.Rows() {
					s := list[b%len(list)]
					s.Uniform = float64(r.Float32())
					s.Put(words)
					for i, x := range words {
						a.Row(b)[i] = float64(x)
					}
				}
			},
		}
	}
	equal := drawn(all...)
	equal["scores"] = graph.Integers(-2, 3)
	return []graph.Case{
		{Name: "small", Spec: Spec(16), Dims: graph.Dims{"B": 5, "V": 16}, Fill: drawn(all...)},
		{Name: "one token", Spec: Spec(1), Dims: graph.Dims{"B": len(all), "V": 4}, Fill: drawn(all...)},
		{Name: "many rows", Spec: Spec(300), Dims: graph.Dims{"B": 4*len(all) + 3, "V": 307}, Fill: drawn(all...)},
		{Name: "equal scores", Spec: Spec(2999), Dims: graph.Dims{"B": 3 * len(all), "V": 3000}, Fill: equal},
		{Name: "parts of a GPU", Spec: Spec(2*part + 77), Dims: graph.Dims{"B": 3 * len(all), "V": 2*part + 80}, Fill: drawn(all...)},
		{Name: "parts of a GPU, equal scores", Spec: Spec(3 * part), Dims: graph.Dims{"B": len(all), "V": 3 * part}, Fill: equal},
		{Name: "1.7b", Spec: Spec(50295), Dims: graph.Dims{"B": 16, "V": 50304}, Fill: drawn(all[1]), Bench: true},
		{Name: "1.7b, top-p", Spec: Spec(50295), Dims: graph.Dims{"B": 16, "V": 50304}, Fill: drawn(all[3]), Bench: true},
	}
}
