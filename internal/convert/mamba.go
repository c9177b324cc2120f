package convert

import (
	"fmt"

	"github.com/sambatrain/sambatrain/layers"
)

// mambaConfig is the config of Transformers' MambaForCausalLM.
type mambaConfig struct {
	common
	// Padding is the end-of-text token: the class requires a number here.
	Padding          any         `json:"pad_token_id"`
	HiddenSize       int         `json:"hidden_size"`
	IntermediateSize int         `json:"intermediate_size,omitempty"`
	StateSize        int         `json:"state_size"`
	Layers           int         `json:"num_hidden_layers"`
	Epsilon          decimal     `json:"layer_norm_epsilon"`
	Expand           float64     `json:"expand"`
	ConvKernel       int         `json:"conv_kernel"`
	UseBias          bool        `json:"use_bias"`
	UseConvBias      bool        `json:"use_conv_bias"`
	Activation       string      `json:"hidden_act"`
	TimeStepRank     layers.Auto `json:"time_step_rank"`
	ResidualIn32     bool        `json:"residual_in_fp32"`
	Rescale          bool        `json:"rescale_prenorm_residual"`
	UseCache         bool        `json:"use_cache"`
}

// defaultMamba returns the class's defaults for keys that are left out.
func defaultMamba() *mambaConfig {
	return &mambaConfig{common: common{Tied: true, VocabSize: 50280}, HiddenSize: 768, StateSize: 16, Layers: 32,
		Epsilon: 1e-5, Expand: 2, ConvKernel: 4, UseBias: true, UseConvBias: true, Activation: "silu"}
}

func newMamba(s *Source, o Options, stack []layers.Sublayer) (family, error) {
	var list []layers.Mamba
	for _, l := range stack {
		list = append(list, l.Mixer.(layers.Mamba))
	}
	m, err := same(list, "MambaForCausalLM: mamba's settings")
	if err != nil {
		return nil, err
	}
	d := s.Model.DModel
	return &mambaConfig{common: newCommon(s, o, "MambaForCausalLM", "mamba"), Padding: s.Tokenizer.EOS(),
		HiddenSize: d, IntermediateSize: int(m.Expand * float64(d)), StateSize: m.DState, Layers: len(stack),
		Epsilon: decimal(s.Model.NormEps), Expand: m.Expand, ConvKernel: m.DConv, UseConvBias: true, Activation: "silu",
		TimeStepRank: layers.Auto(m.DTRank.Or((d + 15) / 16)), ResidualIn32: true, UseCache: true}, nil
}

func (c *mambaConfig) class() string { return "MambaForCausalLM" }

func (c *mambaConfig) model() (*layers.Model, error) {
	if err := checkMamba(c.UseBias, c.UseConvBias, c.Activation); err != nil {
		return nil, err
	}
	if err := checkLayers(c.Layers); err != nil {
		return nil, err
	}
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.NormEps, m.TieEmbeddings = c.VocabSize, c.HiddenSize, float64(c.Epsilon), c.Tied
	m.Layers = layers.Stack{Pattern: []layers.Place{{Mixer: "mamba"}}, Repeat: c.Layers}
	m.Mamba.Expand, m.Mamba.DState, m.Mamba.DConv, m.Mamba.DTRank = c.Expand, c.StateSize, c.ConvKernel, c.TimeStepRank
	return &m, nil
}

// checkMamba rejects features that the mixer here doesn't have.
func checkMamba(bias, convBias bool, activation string) error {
	switch {
	case bias:
		return fmt.Errorf("use_bias: is true; mamba here has no biases in in_proj and out_proj")
	case !convBias:
		return fmt.Errorf("use_conv_bias: is false; mamba here has a bias in its convolution")
	}
	return checkActivation(activation)
}

func checkActivation(name string) error {
	if name != "silu" && name != "swish" {
		return fmt.Errorf("hidden_act: is %q; models here have silu", name)
	}
	return nil
}

func (c *mambaConfig) prefixes() []prefix {
	return []prefix{{"model.embeddings.", "backbone.embeddings."}, {"model.", "backbone."}}
}

// originalMamba is the config of state-spaces/mamba's own MambaLMHeadModel.
type originalMamba struct {
	DModel   int  `json:"d_model"`
	Layers   int  `json:"n_layer"`
	Vocab    int  `json:"vocab_size"`
	Multiple int  `json:"pad_vocab_size_multiple"`
	Tied     bool `json:"tie_embeddings"`
	RMSNorm  bool `json:"rms_norm"`
	SSM      struct {
		Layer  string      `json:"layer"`
		DState int         `json:"d_state"`
		DConv  int         `json:"d_conv"`
		Expand float64     `json:"expand"`
		DTRank layers.Auto `json:"dt_rank"`
	} `json:"ssm_cfg"`
	Attention []int `json:"attn_layer_idx"`
	MLP       int   `json:"d_intermediate"`
}

func defaultOriginalMamba() *originalMamba {
	c := &originalMamba{DModel: 2560, Layers: 64, Vocab: 50277, Multiple: 8, Tied: true, RMSNorm: true}
	c.SSM.DState, c.SSM.DConv, c.SSM.Expand = 16, 4, 2
	return c
}

func (c *originalMamba) class() string { return "MambaLMHeadModel" }

func (c *originalMamba) model() (*layers.Model, error) {
	switch {
	case c.SSM.Layer != "" && c.SSM.Layer != "Mamba1":
		return nil, fmt.Errorf("ssm_cfg.layer: is %q; the mixer here is Mamba1", c.SSM.Layer)
	case !c.RMSNorm:
		return nil, fmt.Errorf("rms_norm: is false; norms here are RMSNorm")
	case len(c.Attention) > 0 || c.MLP > 0:
		return nil, fmt.Errorf("attn_layer_idx, d_intermediate: only models of mamba alone can be read")
	case c.Layers < 1 || c.Multiple < 1:
		return nil, fmt.Errorf("n_layer, pad_vocab_size_multiple: must be at least 1, are %d and %d", c.Layers, c.Multiple)
	}
	m := layers.Defaults()
	m.VocabSize = (c.Vocab + c.Multiple - 1) / c.Multiple * c.Multiple
	m.DModel, m.TieEmbeddings = c.DModel, c.Tied
	m.Layers = layers.Stack{Pattern: []layers.Place{{Mixer: "mamba"}}, Repeat: c.Layers}
	m.Mamba.Expand, m.Mamba.DState, m.Mamba.DConv, m.Mamba.DTRank = c.SSM.Expand, c.SSM.DState, c.SSM.DConv, c.SSM.DTRank
	return &m, nil
}

func (c *originalMamba) prefixes() []prefix {
	return []prefix{{"model.embeddings.", "backbone.embedding."}, {"model.", "backbone."}}
}
