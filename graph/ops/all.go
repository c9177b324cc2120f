// Package ops lists every op, for the benchmarks and tests that cover all of them. Layers import
// only the ops that they use.
package ops

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/adamw"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/add_bias"
	"github.com/sambatrain/sambatrain/graph/ops/all_gather"
	"github.com/sambatrain/sambatrain/graph/ops/all_reduce"
	"github.com/sambatrain/sambatrain/graph/ops/argmax"
	"github.com/sambatrain/sambatrain/graph/ops/attention"
	"github.com/sambatrain/sambatrain/graph/ops/cast_weights"
	"github.com/sambatrain/sambatrain/graph/ops/causal_conv"
	"github.com/sambatrain/sambatrain/graph/ops/chunk_attention"
	"github.com/sambatrain/sambatrain/graph/ops/embedding"
	"github.com/sambatrain/sambatrain/graph/ops/gated_head_norm"
	"github.com/sambatrain/sambatrain/graph/ops/gated_update"
	"github.com/sambatrain/sambatrain/graph/ops/grad_norm"
	"github.com/sambatrain/sambatrain/graph/ops/last_token"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/graph/ops/linear_cross_entropy"
	"github.com/sambatrain/sambatrain/graph/ops/linear_recurrence"
	"github.com/sambatrain/sambatrain/graph/ops/linear_swiglu"
	"github.com/sambatrain/sambatrain/graph/ops/log_gate"
	"github.com/sambatrain/sambatrain/graph/ops/offset_scale"
	"github.com/sambatrain/sambatrain/graph/ops/reduce_scatter"
	"github.com/sambatrain/sambatrain/graph/ops/rms_norm"
	"github.com/sambatrain/sambatrain/graph/ops/rope"
	"github.com/sambatrain/sambatrain/graph/ops/rotary_bias"
	"github.com/sambatrain/sambatrain/graph/ops/round"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
	"github.com/sambatrain/sambatrain/graph/ops/selective_scan"
	"github.com/sambatrain/sambatrain/graph/ops/silu"
	"github.com/sambatrain/sambatrain/graph/ops/swiglu"
	"github.com/sambatrain/sambatrain/graph/ops/zero"
)

// Op is one subfolder.
type Op struct {
	// Name is the name of the folder.
	Name string
	// Cases are the op's shapes under test and in benchmarks.
	Cases func() []graph.Case
}

// All are the ops by name.
func All() []Op {
	return []Op{
		{"adamw", adamw.Cases},
		{"add", add.Cases},
		{"add_bias", add_bias.Cases},
		{"all_gather", all_gather.Cases},
		{"all_reduce", all_reduce.Cases},
		{"argmax", argmax.Cases},
		{"attention", attentionCases},
		{"cast_weights", cast_weights.Cases},
		{"causal_conv", causal_conv.Cases},
		{"chunk_attention", chunk_attention.Cases},
		{"embedding", embedding.Cases},
		{"gated_head_norm", gated_head_norm.Cases},
		{"gated_update", gated_update.Cases},
		{"grad_norm", grad_norm.Cases},
		{"last_token", last_token.Cases},
		{"linear", linearCases},
		{"linear_cross_entropy", linear_cross_entropy.Cases},
		{"linear_recurrence", linear_recurrence.Cases},
		{"linear_swiglu", linear_swiglu.Cases},
		{"log_gate", log_gate.Cases},
		{"offset_scale", offset_scale.Cases},
		{"reduce_scatter", reduce_scatter.Cases},
		{"rms_norm", rms_norm.Cases},
		{"rope", rope.Cases},
		{"rotary_bias", rotary_bias.Cases},
		{"round", round.Cases},
		{"sample", sample.Cases},
		{"selective_scan", selective_scan.Cases},
		{"silu", silu.Cases},
		{"swiglu", swiglu.Cases},
		{"zero", zero.Cases},
	}
}

// linearCases are the cases of linear and of a product followed by Mamba's convolution.
func linearCases() []graph.Case {
	return append(linear.Cases(), linear.ConvolvedCases(causal_conv.CarrySpec())...)
}

// attentionCases are the cases of attention and, with rope's rotation, of rotary attention.
func attentionCases() []graph.Case {
	const base = 10000
	return append(attention.Cases(), attention.RotaryCases(func(headDim int) attention.Rotation {
		return attention.Rotation{Turn: rope.Spec(headDim, base), Back: rope.BackwardSpec(headDim, base), Base: base}
	}, func(headDim int) attention.Rotation {
		return attention.Rotation{Turn: rope.CarrySpec(headDim, base), Base: base}
	})...)
}
