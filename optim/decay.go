package optim

import (
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
)

// What AdamW.Decayed may be.
const (
	// DecayAll decays every parameter, as Samba's code does.
	DecayAll = "all"
	// DecayMatrices decays the weights of products and embeddings, and leaves out norms,
	// biases, convolutions, and Mamba's A_log and D.
	DecayMatrices = "matrices"
)

// Decays are what Decayed may be.
var Decays = []string{DecayAll, DecayMatrices}

// run is n parameters from one on, counted in the flat layout of all, which weight decay
// concerns or not.
type run struct {
	from, n int
	decays  bool
}

// runs cut n parameters in as few runs as there can be. What is between two parameters goes
// with the first of them.
func (o AdamW) runs(params []graph.ParamSlot, n int) []run {
	if o.Decayed == DecayAll {
		return []run{{0, n, true}}
	}
	params = slices.Clone(params)
	slices.SortFunc(params, func(a, b graph.ParamSlot) int { return a.Offset - b.Offset })
	var list []run
	from := 0
	for i, p := range params {
		end := n
		if i+1 < len(params) {
			end = params[i+1].Offset
		}
		decays := len(p.Shape) == 2 && strings.HasSuffix(p.Name, ".weight")
		if last := len(list) - 1; last >= 0 && list[last].decays == decays {
			list[last].n += end - from
		} else {
			list = append(list, run{from, end - from, decays})
		}
		from = end
	}
	return list
}

// within calls f for what the runs have of elements [at, at+n): where it begins, counted
// from at, and its length.
func within(list []run, at, n int, f func(from, n int, decays bool)) {
	for _, r := range list {
		if first, last := max(at, r.from), min(at+n, r.from+r.n); first < last {
			f(first-at, last-first, r.decays)
		}
	}
}
