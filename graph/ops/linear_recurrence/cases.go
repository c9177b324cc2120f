package linear_recurrence

import (
	"math"

	"github.com/sambatrain/sambatrain/graph"
)

// Cases are the op's shapes under test.
func Cases() []graph.Case {
	const c = chunkTokens
	var cases []graph.Case
	for _, s := range []struct {
		name  string
		heads int
		dims  graph.Dims
	}{
		{"small", 2, graph.Dims{"B": 2, "T": 9, "Dk": 8, "Dv": 16}},
		{"odd", 3, graph.Dims{"B": 2, "T": c + 7, "Dk": 5, "Dv": 7}},
		{"one token", 2, graph.Dims{"B": 2, "T": 1, "Dk": 3, "Dv": 6}},
		{"one token, wide", 3, graph.Dims{"B": 3, "T": 1, "Dk": 75, "Dv": 264}},
		{"two tokens", 1, graph.Dims{"B": 1, "T": 2, "Dk": 4, "Dv": 4}},
		{"one channel", 1, graph.Dims{"B": 1, "T": 5, "Dk": 1, "Dv": 1}},
		{"whole chunks", 1, graph.Dims{"B": 1, "T": 3 * c, "Dk": 16, "Dv": 8}},
		{"a token behind a chunk", 1, graph.Dims{"B": 1, "T": c + 1, "Dk": 6, "Dv": 3}},
		{"slices of keys", 1, graph.Dims{"B": 1, "T": c + 3, "Dk": keySlice + 5, "Dv": 3}},
		{"slices of values", 1, graph.Dims{"B": 1, "T": c + 3, "Dk": 2, "Dv": valueSlice + 9}},
		{"many sequences", 5, graph.Dims{"B": 2, "T": 7, "Dk": 3, "Dv": 2}},
	} {
		for _, spec := range []*graph.Spec{Spec(s.heads), CarrySpec(s.heads)} {
			cases = append(cases, graph.Case{Name: s.name, Spec: spec, Dims: s.dims, Fill: decays(-1, 0)})
		}
		for _, spec := range []*graph.Spec{FixedSpec(retention(s.heads)), FixedCarrySpec(retention(s.heads))} {
			cases = append(cases, graph.Case{Name: s.name, Spec: spec, Dims: s.dims})
		}
	}
	for _, s := range []struct {
		name      string
		low, high float64
	}{
		{"gla's decays", -0.1, -0.02},
		{"strong", -5, 0},
		{"all strong", -5, -4.9},
		{"forgotten at once", -300, -50},
		{"nearly none", -1e-4, 0},
	} {
		dims := graph.Dims{"B": 1, "T": 2*c + 5, "Dk": 6, "Dv": 8}
		cases = append(cases, graph.Case{Name: s.name, Spec: Spec(2), Dims: dims, Fill: decays(s.low, s.high)})
	}
	documents := decays(-1, 0)
	documents["start"] = graph.DocumentStarts(c + 9)
	for _, f := range []*form{{heads: 2}, fixedForm(retention(2))} {
		cases = append(cases, graph.Case{Name: "documents", Spec: graph.ByDocument(f.spec(), f.backwardSpec(), nil), Fill: documents,
			Dims: graph.Dims{"B": 2, "T": 2*c + 7, "Dk": 5, "Dv": 7}})
	}
	return append(cases,
		graph.Case{Name: "more chunks than at once on a GPU", Spec: Spec(130), Dims: graph.Dims{"B": 2, "T": c + 1, "Dk": 1, "Dv": 1}, Fill: decays(-1, 0)},
		graph.Case{Name: "long", Spec: Spec(1), Dims: graph.Dims{"B": 1, "T": 1000, "Dk": 3, "Dv": 2}, Fill: decays(-1e-3, -0.9e-3)},
		graph.Case{Name: "none", Spec: FixedSpec([]float64{0}), Dims: graph.Dims{"B": 1, "T": c + 9, "Dk": 4, "Dv": 4}},
		graph.Case{Name: "strong", Spec: FixedSpec([]float64{-5, -40}), Dims: graph.Dims{"B": 1, "T": c + 9, "Dk": 4, "Dv": 4}},
		graph.Case{Name: "gla 438m", Spec: Spec(4), Dims: graph.Dims{"B": 1, "T": 4096, "Dk": 192, "Dv": 384}, Fill: decays(-0.1, -0.02), Bench: true},
		graph.Case{Name: "gla batch", Spec: Spec(2), Dims: graph.Dims{"B": 8, "T": 512, "Dk": 64, "Dv": 128}, Fill: decays(-0.1, -0.02), Bench: true},
		graph.Case{Name: "gla 438m one token", Spec: CarrySpec(4), Dims: graph.Dims{"B": 1, "T": 1, "Dk": 192, "Dv": 384}, Fill: decays(-0.1, -0.02), Bench: true},
		graph.Case{Name: "retention 446m", Spec: FixedSpec(retention(6)), Dims: graph.Dims{"B": 1, "T": 4096, "Dk": 256, "Dv": 512}, Bench: true},
		graph.Case{Name: "retention 446m one token", Spec: FixedCarrySpec(retention(6)), Dims: graph.Dims{"B": 1, "T": 1, "Dk": 256, "Dv": 512}, Bench: true},
	)
}

func decays(low, high float64) map[string]graph.Fill {
	return map[string]graph.Fill{"g": graph.Uniform(low, high)}
}

// retention is RetNet's log decays.
func retention(heads int) []float64 {
	g := make([]float64, heads)
	for h := range g {
		g[h] = math.Log1p(-math.Pow(2, -5-float64(h)))
	}
	return g
}
