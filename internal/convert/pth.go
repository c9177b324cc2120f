package convert

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/layers"
)

// exportPth uses the names in checkpoints of the paper's own code (github.com/microsoft/Samba,
// lit_gpt/model.py).
func exportPth(s *Source, o Options) (*Exported, []checkpoint.File, error) {
	stack, err := s.Model.Sublayers()
	if err != nil {
		return nil, nil, err
	}
	places, err := pthPlaces(stack)
	if err != nil {
		return nil, nil, fmt.Errorf("format %s: %w", SambaPth, err)
	}
	list := []tensor{
		s.plain(pthEmbeddings, embeddings),
		s.plain("transformer.ln_f.weight", "model.norm_f.weight"),
		s.plain(head, s.head()), // present there even if it is tied
	}
	for i, l := range stack {
		ours := fmt.Sprintf("model.layers.%d.", i)
		list = append(list, s.plain(places[i].norm+".weight", ours+"norm.weight"))
		list = append(list, s.pthMixer(ours+"mixer.", places[i].mixer+".", l)...)
	}
	files, err := s.safetensors(list, o)
	if err != nil {
		return nil, nil, err
	}
	config, err := s.ownConfig(o)
	return &Exported{Class: "lit_gpt.model.GPT, with load_state_dict"}, slices.Concat(files, []checkpoint.File{config}, s.tokenizerFiles()), err
}

const (
	embeddings    = "model.embeddings.weight"
	pthEmbeddings = "transformer.wte.weight"
	head          = "lm_head.weight"
)

// head returns the parameter that the head multiplies with.
func (s *Source) head() string {
	if s.Model.TieEmbeddings {
		return embeddings
	}
	return head
}

// plain returns one unchanged parameter.
func (s *Source) plain(name, parameter string) tensor {
	return tensor{name: name, shape: s.shape(parameter), parts: []string{parameter}}
}

// pthPlace is where a block stores a sublayer.
type pthPlace struct{ norm, mixer string }

// pthPlaces returns the blocks of a stack: mamba alone; mamba, attention and an MLP; or any mixer
// and an MLP.
func pthPlaces(stack []layers.Sublayer) ([]pthPlace, error) {
	block := []pthPlace{{"norm_1", "attn"}, {"norm_2", "mlp"}}
	switch {
	case !slices.ContainsFunc(stack, func(l layers.Sublayer) bool { return l.Name != "mamba" }):
		block = []pthPlace{{"norm", "mixer"}}
	case len(stack) > 1 && stack[0].Name == "mamba" && stack[1].Name != "mlp":
		block = []pthPlace{{"norm_m", "mb"}, {"norm_attn", "attn"}, {"norm_2", "mlp"}}
	}
	var places []pthPlace
	for i, l := range stack {
		at := i % len(block)
		var fits bool
		switch block[at].mixer {
		case "mlp":
			fits = l.Name == "mlp"
		case "mb", "mixer":
			fits = l.Name == "mamba"
		default:
			fits = len(block) == 2 || l.Name == "attn" || l.Name == "swa"
		}
		if l.Name == "mega" {
			return nil, fmt.Errorf("the code keeps a buffer of Mega's position bias that no run has")
		}
		if !fits || len(stack)%len(block) != 0 {
			return nil, fmt.Errorf("the code has blocks of a mixer and an mlp, of mamba, attention and an mlp, or of mamba alone; at sublayer %d this model has something else (%s)", i, l.Name)
		}
		h := fmt.Sprintf("transformer.h.%d.", i/len(block))
		places = append(places, pthPlace{h + block[at].norm, h + block[at].mixer})
	}
	return places, nil
}

// pthNames are the parameters of mixers that have different names there.
var pthNames = map[string]string{
	"gate_proj.weight": "swiglu.w1.weight", "up_proj.weight": "swiglu.w2.weight", "down_proj.weight": "swiglu.w3.weight",
	"g_norm.weight": "g_norm_swish_gate.weight",
}

// pthMixer returns a mixer's parameters; `ours` and `theirs` are the prefixes of their names.
func (s *Source) pthMixer(ours, theirs string, l layers.Sublayer) []tensor {
	if a, ok := l.Mixer.(layers.Attention); ok {
		d := s.Model.DModel
		return []tensor{
			{name: theirs + "attn.weight", shape: []int{(a.Heads + 2*a.KVHeads) * a.HeadDim, d},
				parts: []string{ours + "q_proj.weight", ours + "k_proj.weight", ours + "v_proj.weight"},
				make:  func(p [][]float32) []float32 { return fuse(a, d, p) }},
			s.plain(theirs+"proj.weight", ours+"o_proj.weight"),
		}
	}
	var list []tensor
	for _, e := range s.Parameters.Entries() {
		name, ok := strings.CutPrefix(e.Name, ours)
		if !ok {
			continue
		}
		if other, ok := pthNames[name]; ok {
			name = other
		}
		list = append(list, s.plain(theirs+name, e.Name))
	}
	return list
}

// fuse concatenates the rows of queries, keys and values, each of width d: for every key head its
// query heads, the key head, and its values.
func fuse(a layers.Attention, d int, qkv [][]float32) []float32 {
	var x []float32
	head, group := a.HeadDim*d, a.Heads/a.KVHeads
	for k := range a.KVHeads {
		x = append(x, qkv[0][k*group*head:(k+1)*group*head]...)
		x = append(x, qkv[1][k*head:(k+1)*head]...)
		x = append(x, qkv[2][k*head:(k+1)*head]...)
	}
	return x
}
