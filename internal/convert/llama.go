package convert

import (
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/layers"
)

// llamaConfig is the config of Transformers' LlamaForCausalLM and, with a sliding window,
// MistralForCausalLM.
type llamaConfig struct {
	common
	HiddenSize       int      `json:"hidden_size"`
	IntermediateSize int      `json:"intermediate_size"`
	Layers           int      `json:"num_hidden_layers"`
	Heads            int      `json:"num_attention_heads"`
	KVHeads          *int     `json:"num_key_value_heads"`
	HeadDim          *int     `json:"head_dim"`
	Positions        int      `json:"max_position_embeddings"`
	Epsilon          decimal  `json:"rms_norm_eps"`
	Activation       string   `json:"hidden_act"`
	RopeTheta        *decimal `json:"rope_theta,omitempty"`
	// RopeParameters replaces RopeTheta and RopeScaling in version 5 of Transformers.
	RopeParameters *ropeParameters `json:"rope_parameters,omitempty"`
	RopeScaling    *ropeParameters `json:"rope_scaling,omitempty"`
	Window         *int            `json:"sliding_window,omitempty"`
	AttentionBias  bool            `json:"attention_bias"`
	MLPBias        bool            `json:"mlp_bias"`
	UseCache       bool            `json:"use_cache"`
}

type ropeParameters struct {
	Type string `json:"rope_type,omitempty"`
	// OldType is the spelling of Type in older configs.
	OldType string   `json:"type,omitempty"`
	Theta   *decimal `json:"rope_theta,omitempty"`
	Partial *float64 `json:"partial_rotary_factor,omitempty"`
}

// check rejects rotary positions other than the plain ones.
func (r *ropeParameters) check(key string) error {
	if r == nil {
		return nil
	}
	for _, name := range []string{r.Type, r.OldType} {
		if name != "" && name != "default" {
			return fmt.Errorf("%s: is %q; rotary positions here are not scaled", key, name)
		}
	}
	if r.Partial != nil && *r.Partial != 1 {
		return fmt.Errorf("%s.partial_rotary_factor: is %v; rotary positions here turn whole heads", key, *r.Partial)
	}
	return nil
}

// defaultLlama and defaultMistral return the classes' defaults for keys that are left out.
func defaultLlama() *llamaConfig {
	return &llamaConfig{common: common{VocabSize: 32000}, HiddenSize: 4096, IntermediateSize: 11008, Layers: 32, Heads: 32,
		Positions: 2048, Epsilon: 1e-6, Activation: "silu"}
}

func defaultMistral() *llamaConfig {
	c := defaultLlama()
	c.IntermediateSize, c.Positions, c.KVHeads, c.Window = 14336, 4096*32, new(8), new(4096)
	return c
}

func newLlama(s *Source, o Options, stack []layers.Sublayer) (family, error) {
	class, modelType := "LlamaForCausalLM", "llama"
	if stack[0].Name == "swa" {
		class, modelType = "MistralForCausalLM", "mistral"
	}
	blocks, a, mlp, err := uniform(stack, class)
	if err != nil {
		return nil, err
	}
	theta := decimal(a.RopeBase)
	c := &llamaConfig{common: newCommon(s, o, class, modelType),
		HiddenSize: s.Model.DModel, IntermediateSize: mlp.DFF, Layers: len(blocks),
		Heads: a.Heads, KVHeads: &a.KVHeads, HeadDim: &a.HeadDim, Positions: s.SeqLen,
		Epsilon: decimal(s.Model.NormEps), Activation: "silu", UseCache: true,
		RopeTheta: &theta, RopeParameters: &ropeParameters{Type: "default", Theta: &theta}}
	if a.Window > 0 {
		c.Window = &a.Window
	}
	return c, nil
}

// uniform returns the blocks of a stack, and the settings of their attention (in every block that
// isn't mamba) and of their MLPs, which must all be the same.
func uniform(stack []layers.Sublayer, class string) (blocks []block, a layers.Attention, mlp layers.SwiGLU, err error) {
	if blocks, err = blocksOf(stack); err != nil {
		return nil, a, mlp, fmt.Errorf("%s: %w", class, err)
	}
	var attention []layers.Attention
	var mlps []layers.SwiGLU
	for _, b := range blocks {
		if a, ok := b.mixer.(layers.Attention); ok {
			attention = append(attention, a)
		}
		mlps = append(mlps, b.mlp)
	}
	a, err1 := same(attention, class+": attention's settings")
	mlp, err2 := same(mlps, class+": d_ff")
	err = errors.Join(err1, err2)
	if err == nil && len(attention) > 0 && a.RopeBase == 0 {
		err = fmt.Errorf("%s always has rotary positions; this model has none (rope_base: 0)", class)
	}
	return blocks, a, mlp, err
}

func (c *llamaConfig) class() string {
	if c.ModelType == "mistral" {
		return "MistralForCausalLM"
	}
	return "LlamaForCausalLM"
}

func (c *llamaConfig) model() (*layers.Model, error) {
	err := checkActivation(c.Activation)
	switch {
	case err != nil:
		return nil, err
	case c.AttentionBias:
		return nil, errors.New("attention_bias: is true; attention here has no biases")
	case c.MLPBias:
		return nil, errors.New("mlp_bias: is true; MLPs here have no biases")
	}
	if err := checkLayers(c.Layers); err != nil {
		return nil, err
	}
	if err := c.RopeScaling.check("rope_scaling"); err != nil {
		return nil, err
	}
	if err := c.RopeParameters.check("rope_parameters"); err != nil {
		return nil, err
	}
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.NormEps, m.TieEmbeddings = c.VocabSize, c.HiddenSize, float64(c.Epsilon), c.Tied
	a := &m.Attention
	a.Heads, a.RopeBase = c.Heads, 10000
	if c.KVHeads != nil {
		a.KVHeads = *c.KVHeads
	}
	if c.HeadDim != nil {
		a.HeadDim = *c.HeadDim
	}
	switch {
	case c.RopeParameters != nil && c.RopeParameters.Theta != nil:
		a.RopeBase = float64(*c.RopeParameters.Theta)
	case c.RopeTheta != nil:
		a.RopeBase = float64(*c.RopeTheta)
	}
	if !(a.RopeBase > 0) {
		return nil, fmt.Errorf("rope_theta: must be positive, is %v", a.RopeBase)
	}
	mixer := "attn"
	if c.ModelType == "mistral" && c.Window != nil {
		mixer, a.Window = "swa", *c.Window
	}
	m.MLP.DFF = c.IntermediateSize
	m.Layers = layers.Stack{Pattern: []layers.Place{{Mixer: mixer}, {Mixer: "mlp"}}, Repeat: c.Layers}
	return &m, nil
}

func (c *llamaConfig) prefixes() []prefix {
	return append(blockPrefixes(c.Layers, "model", "input_layernorm", "self_attn", "post_attention_layernorm", "mlp"),
		prefix{"model.embeddings.", "model.embed_tokens."}, prefix{"model.norm_f.", "model.norm."})
}
