package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/layers"
)

// sambaConfig is the config of flash-linear-attention's SambaForCausalLM: blocks of mamba or
// attention, each followed by an MLP.
type sambaConfig struct {
	common
	Padding          any             `json:"pad_token_id"`
	HiddenSize       int             `json:"hidden_size"`
	IntermediateSize int             `json:"intermediate_size,omitempty"` // of mamba
	StateSize        int             `json:"state_size"`
	Layers           int             `json:"num_hidden_layers"`
	Epsilon          decimal         `json:"norm_eps"`
	Expand           float64         `json:"expand"`
	ConvKernel       int             `json:"conv_kernel"`
	UseBias          bool            `json:"use_bias"`
	UseConvBias      bool            `json:"use_conv_bias"`
	Activation       string          `json:"hidden_act"`
	TimeStepRank     layers.Auto     `json:"time_step_rank"`
	Positions        int             `json:"max_position_embeddings"`
	Attention        *sambaAttention `json:"attn"`
	HiddenRatio      float64         `json:"hidden_ratio"`
	ResidualIn32     bool            `json:"residual_in_fp32"`
	Rescale          bool            `json:"rescale_prenorm_residual"`
	UseCache         bool            `json:"use_cache"`
	AttnRes          *int            `json:"attnres_block_size,omitempty"`
}

type sambaAttention struct {
	Layers    []int   `json:"layers"` // the blocks that have it
	Heads     int     `json:"num_heads"`
	KVHeads   int     `json:"num_kv_heads"`
	Bias      bool    `json:"qkv_bias"`
	Window    *int    `json:"window_size"` // null: all earlier tokens
	RopeTheta decimal `json:"rope_theta"`
}

// UnmarshalJSON rejects a section that lacks a key without a default: the class's defaults are those
// of a config without this section.
func (a *sambaAttention) UnmarshalJSON(text []byte) error {
	var given map[string]json.RawMessage
	if err := json.Unmarshal(text, &given); err != nil {
		return err
	}
	for _, key := range []string{"layers", "num_heads", "num_kv_heads", "window_size"} {
		if _, ok := given[key]; !ok {
			return fmt.Errorf("attn.%s: is missing; the class has no default for it", key)
		}
	}
	type plain sambaAttention
	*a = sambaAttention{RopeTheta: 10000}
	return json.Unmarshal(text, (*plain)(a))
}

// defaultSamba returns the class's defaults for keys that are left out.
func defaultSamba() *sambaConfig {
	c := &sambaConfig{common: common{VocabSize: 32000}, HiddenSize: 2304, StateSize: 16, Layers: 18, Epsilon: 1e-5,
		Expand: 2, ConvKernel: 4, UseConvBias: true, Activation: "swish", Positions: 2048, HiddenRatio: 4,
		Attention: &sambaAttention{Heads: 18, KVHeads: 18, Window: new(2048), RopeTheta: 10000}}
	for i := 1; i < 18; i += 2 {
		c.Attention.Layers = append(c.Attention.Layers, i)
	}
	return c
}

func newSamba(s *Source, o Options, stack []layers.Sublayer) (family, error) {
	const class = "SambaForCausalLM"
	blocks, a, mlp, err := uniform(stack, class)
	if err != nil {
		return nil, err
	}
	attention := &sambaAttention{Layers: []int{}, Heads: a.Heads, KVHeads: a.KVHeads, RopeTheta: decimal(a.RopeBase)}
	if a.Window > 0 {
		attention.Window = &a.Window
	}
	var mambas []layers.Mamba
	for i, b := range blocks {
		switch mixer := b.mixer.(type) {
		case layers.Mamba:
			mambas = append(mambas, mixer)
		case layers.Attention:
			attention.Layers = append(attention.Layers, i)
		}
	}
	m, err := same(mambas, class+": mamba's settings")
	if err != nil {
		return nil, err
	}
	d := s.Model.DModel
	switch {
	case len(attention.Layers) == 0:
		// The class requires numbers here, which nothing reads.
		attention.Heads, attention.KVHeads, attention.RopeTheta = 1, 1, 10000
	case a.Heads*a.HeadDim != d:
		return nil, fmt.Errorf("%s: heads are d_model / heads wide, %d; this model's are %d (head_dim)", class, d/a.Heads, a.HeadDim)
	}
	ratio, err := hiddenRatio(d, mlp.DFF)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", class, err)
	}
	return &sambaConfig{common: newCommon(s, o, class, "samba"), Padding: s.Tokenizer.EOS(),
		HiddenSize: d, IntermediateSize: int(m.Expand * float64(d)), StateSize: m.DState, Layers: len(blocks),
		Epsilon: decimal(s.Model.NormEps), Expand: m.Expand, ConvKernel: m.DConv, UseConvBias: true, Activation: "swish",
		TimeStepRank: layers.Auto(m.DTRank.Or((d + 15) / 16)), Positions: s.SeqLen,
		Attention: attention, HiddenRatio: ratio, ResidualIn32: true, UseCache: true}, nil
}

// gatedWidth is the width of the class's MLP, whose config has a ratio instead: two thirds of ratio
// times d, rounded up to a multiple of 256.
func gatedWidth(d int, ratio float64) int {
	return 256 * ((int(float64(d)*ratio*2/3) + 255) / 256)
}

// hiddenRatio returns the ratio that gives dff, an integer if possible.
func hiddenRatio(d, dff int) (float64, error) {
	exact := 1.5 * float64(dff) / float64(d)
	for _, ratio := range []float64{math.Round(exact), exact, exact * (1 - 1e-9)} {
		if gatedWidth(d, ratio) == dff {
			return ratio, nil
		}
	}
	return 0, fmt.Errorf("an MLP's width is a multiple of 256; this model's is %d (d_ff)", dff)
}

func (c *sambaConfig) class() string { return "SambaForCausalLM" }

func (c *sambaConfig) model() (*layers.Model, error) {
	if c.Attention == nil {
		c.Attention = defaultSamba().Attention // null means left out
	}
	err := checkMamba(c.UseBias, c.UseConvBias, c.Activation)
	switch a := c.Attention; {
	case err != nil:
		return nil, err
	case c.AttnRes != nil:
		return nil, errors.New("attnres_block_size: is set; models here have plain residuals")
	case a.Bias:
		return nil, errors.New("attn.qkv_bias: is true; attention here has no biases")
	case a.RopeTheta <= 0:
		return nil, fmt.Errorf("attn.rope_theta: must be positive, is %v", a.RopeTheta)
	}
	if err := checkLayers(c.Layers); err != nil {
		return nil, err
	}
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.NormEps, m.TieEmbeddings = c.VocabSize, c.HiddenSize, float64(c.Epsilon), c.Tied
	m.Mamba.Expand, m.Mamba.DState, m.Mamba.DConv, m.Mamba.DTRank = c.Expand, c.StateSize, c.ConvKernel, c.TimeStepRank
	m.MLP.DFF = gatedWidth(c.HiddenSize, c.HiddenRatio)
	mixer, a := "attn", c.Attention
	m.Attention.Heads, m.Attention.KVHeads, m.Attention.RopeBase = a.Heads, a.KVHeads, float64(a.RopeTheta)
	if a.Window != nil {
		mixer, m.Attention.Window = "swa", *a.Window
	}
	var stack []string
	for i := range c.Layers {
		if slices.Contains(a.Layers, i) {
			stack = append(stack, mixer, "mlp")
		} else {
			stack = append(stack, "mamba", "mlp")
		}
	}
	m.Layers = folded(stack)
	return &m, nil
}

// folded writes a stack as the shortest pattern that is repeated.
func folded(stack []string) layers.Stack {
	n := 1
	for ; n < len(stack); n++ {
		if len(stack)%n == 0 && strings.Join(slices.Repeat(stack[:n], len(stack)/n), " ") == strings.Join(stack, " ") {
			break
		}
	}
	s := layers.Stack{Repeat: len(stack) / n}
	for _, name := range stack[:n] {
		s.Pattern = append(s.Pattern, layers.Place{Mixer: name})
	}
	return s
}

func (c *sambaConfig) prefixes() []prefix {
	return append(blockPrefixes(c.Layers, "backbone", "mixer_norm", "mixer", "mlp_norm", "mlp"),
		prefix{"model.embeddings.", "backbone.embeddings."}, prefix{"model.norm_f.", "backbone.norm_f."})
}
