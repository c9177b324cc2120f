package optim

import (
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
)

// The values that AdamW.Decayed may have.
const (
	// DecayAll decays every parameter, as Samba's code does.
	DecayAll = "all"
	// DecayMatrices decays the weights of products and embeddings, but not norms, biases,
	// convolutions, or Mamba's A_log and D.
	DecayMatrices = "matrices"
)

// Decays are the values that Decayed may have.
var Decays = []string{DecayAll, DecayMatrices}

// run is n consecutive parameters, counted in the flat layout of all of them, which weight decay
// either applies to or not.
type run struct {
	from, n int
	decays  bool
}

// runs cuts n parameters into as few runs as possible. The gap between two parameters belongs to
// the run of the first.
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

// within calls f for the part of each run that lies in elements [at, at+n): its start, relative to
// at, and its length.
func within(list []run, at, n int, f func(from, n int, decays bool)) {
	for _, r := range list {
		if first, last := max(at, r.from), min(at+n, r.from+r.n); first < last {
			f(first-at, last-first, r.decays)
		}
	}
}
