package convert

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/plainjson"
	"github.com/sambatrain/sambatrain/layers"
)

// family is a class of Hugging Face models. Its config is a struct that is written as config.json,
// or decoded from one on top of the class's defaults.
type family interface {
	// class is the model's Python class.
	class() string
	// model returns the model that the config describes, in this program's terms. It rejects a
	// config that a run can't have.
	model() (*layers.Model, error)
	// prefixes are the differences between this program's parameter names and those of the class.
	prefixes() []prefix
}

// prefix is the start of some parameter names, here and in another program.
type prefix struct{ ours, theirs string }

// rename replaces our prefix by theirs.
func rename(name string, list []prefix) string {
	for _, p := range list {
		if rest, ok := strings.CutPrefix(name, p.ours); ok {
			return p.theirs + rest
		}
	}
	return name
}

// common holds the keys that all configs have.
type common struct {
	Architectures []string `json:"architectures"`
	ModelType     string   `json:"model_type"`
	VocabSize     int      `json:"vocab_size"`
	Tied          bool     `json:"tie_word_embeddings"`
	BOS           any      `json:"bos_token_id"` // a number; some models have a list
	EOS           any      `json:"eos_token_id"`
	// DType is TorchDType in version 5 of Transformers.
	DType      DType `json:"dtype,omitempty"`
	TorchDType DType `json:"torch_dtype,omitempty"`
	// Quantized is set if weights are not plain numbers.
	Quantized any `json:"quantization_config,omitempty"`
}

// decimal is a number that JSON shows with a decimal point: Transformers distinguishes 10000.0 from
// 10000.
type decimal float64

// MarshalJSON writes the shortest decimal that reads back to the same number.
func (d decimal) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(d), 'g', -1, 64)
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return []byte(text), nil
}

// newCommon describes the model. Text begins with the end-of-text token, as rows do in training.
func newCommon(s *Source, o Options, class, modelType string) common {
	eos := s.Tokenizer.EOS()
	return common{
		Architectures: []string{class}, ModelType: modelType, VocabSize: s.Model.VocabSize, Tied: s.Model.TieEmbeddings,
		BOS: eos, EOS: eos, DType: o.DType, TorchDType: o.DType,
	}
}

func exportHF(s *Source, o Options) (*Exported, []checkpoint.File, error) {
	f, err := describe(s, o)
	if err == nil {
		err = checkHFTokenizer(s)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("format %s: %w", HF, err)
	}
	list := s.renamed(f.prefixes())
	files, err := s.safetensors(list, o)
	if err != nil {
		return nil, nil, err
	}
	for _, part := range []struct {
		name string
		v    any
	}{{configFile, f}, {"generation_config.json", map[string]int32{"bos_token_id": s.Tokenizer.EOS(), "eos_token_id": s.Tokenizer.EOS()}}} {
		text, err := plainjson.Indented(part.v)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, checkpoint.Bytes(part.name, text))
	}
	return &Exported{Class: f.class()}, append(files, s.tokenizerFiles()...), nil
}

// renamed returns all parameters unchanged, with other names.
func (s *Source) renamed(p []prefix) []tensor {
	var list []tensor
	for _, e := range s.Parameters.Entries() {
		list = append(list, tensor{name: rename(e.Name, p), shape: e.Shape, parts: []string{e.Name}})
	}
	return list
}

// describe returns the class that the model belongs to.
func describe(s *Source, o Options) (family, error) {
	stack, err := s.Model.Sublayers()
	if err != nil {
		return nil, err
	}
	has := map[string]bool{}
	for _, l := range stack {
		has[l.Name] = true
		if !slices.Contains([]string{"mamba", "attn", "swa", "mlp"}, l.Name) {
			return nil, fmt.Errorf("none of MambaForCausalLM, LlamaForCausalLM, MistralForCausalLM and SambaForCausalLM has %s", l.Name)
		}
	}
	switch {
	case len(has) == 1 && has["mamba"]:
		return newMamba(s, o, stack)
	case !has["mamba"] && has["attn"] != has["swa"]:
		return newLlama(s, o, stack)
	}
	return newSamba(s, o, stack)
}

// block is a mixer and the MLP after it.
type block struct {
	name  string // of the mixer
	mixer layers.Mixer
	mlp   layers.SwiGLU
}

// blocksOf divides a stack into blocks.
func blocksOf(stack []layers.Sublayer) ([]block, error) {
	var blocks []block
	for i := 0; i < len(stack); i += 2 {
		if stack[i].Name == "mlp" || i+1 == len(stack) || stack[i+1].Name != "mlp" {
			return nil, fmt.Errorf("blocks are a mixer and an mlp; at sublayer %d this model has something else (%s)", i, stack[i].Name)
		}
		blocks = append(blocks, block{stack[i].Name, stack[i].Mixer, stack[i+1].Mixer.(layers.SwiGLU)})
	}
	return blocks, nil
}

// same returns the common value of a list; differ is the error if there is none.
func same[T comparable](list []T, differ string) (T, error) {
	for _, x := range list {
		if x != list[0] {
			return x, fmt.Errorf("%s must be the same in all layers", differ)
		}
	}
	if len(list) == 0 {
		var none T
		return none, nil
	}
	return list[0], nil
}

// maxLayers is more than a model here can have.
const maxLayers = 10_000

func checkLayers(n int) error {
	if n < 1 || n > maxLayers {
		return fmt.Errorf("num_hidden_layers: must be 1 to %d, is %d", maxLayers, n)
	}
	return nil
}

// blockPrefixes maps the parameters of a block's two sublayers.
func blockPrefixes(blocks int, root, norm1, mixer, norm2, mlp string) []prefix {
	var list []prefix
	for i := range blocks {
		for k, part := range []struct{ norm, mixer string }{{norm1, mixer}, {norm2, mlp}} {
			ours := fmt.Sprintf("model.layers.%d.", 2*i+k)
			theirs := fmt.Sprintf("%s.layers.%d.", root, i)
			list = append(list, prefix{ours + "norm.", theirs + part.norm + "."}, prefix{ours + "mixer.", theirs + part.mixer + "."})
		}
	}
	return list
}

// checkHFTokenizer rejects a tokenizer.model without a tokenizer.json: Transformers would convert
// it to a different model, with other ids.
func checkHFTokenizer(s *Source) error {
	if _, ok := s.Tokenizer.ExportFiles()["tokenizer.json"]; ok {
		return nil
	}
	return fmt.Errorf("Transformers gives other ids than tokenizer %s; of SentencePiece only bpe models can be written, trained with --normalization_rule_name=identity --remove_extra_whitespaces=false and without user-defined symbols; --format %s puts the tokenizer.model next to the weights, for SentencePiece's own package", s.Tokenizer.Name(), Safetensors)
}
