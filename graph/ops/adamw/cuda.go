package adamw

import (
	_ "embed"

	"github.com/sambatrain/sambatrain/graph"
)

//go:embed adamw.cu
var source string

// updateCUDA takes Spec's operands; in MixedSpec, shadow comes before them.
func updateCUDA(s Settings) func(*graph.CUDACall) ([]graph.Launch, error) {
	return func(c *graph.CUDACall) ([]graph.Launch, error) {
		const threads, share = 256, 8 // share is SHARE in the source
		in, macros := c.In, map[string]string{}
		var shadow uint64
		if len(in) > specInputs {
			shadow, in, macros["SHADOW"] = in[0].Address, in[1:], "1"
		}
		p, g, m, v, norm, hyper := in[0], in[1], in[2], in[3], in[4], in[5]
		n := p.Cols
		return []graph.Launch{{
			Kernel:  "adamw",
			Defines: macros,
			Grid:    [3]int{(n + threads*share - 1) / (threads * share), 1, 1},
			Block:   [3]int{threads, 1, 1},
			Args: []any{shadow, p.Address, g.Address, m.Address, v.Address, norm.Address, hyper.Address, uint64(n),
				float32(s.Beta1), float32(1 - s.Beta1), float32(s.Beta2), float32(1 - s.Beta2),
				float32(s.Eps), float32(s.WeightDecay), float32(s.MaxNorm)},
		}}, nil
	}
}
