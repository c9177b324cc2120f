package convert

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/checkpoint/gguf"
	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/layers"
)

const ggufFile = "model.gguf"

// exportGGUF writes one file for llama.cpp, including the tokenizer.
func exportGGUF(s *Source, o Options) (*Exported, []checkpoint.File, error) {
	stack, err := s.Model.Sublayers()
	if err != nil {
		return nil, nil, err
	}
	arch, header, list, err := ggufModel(s, stack)
	if err != nil {
		return nil, nil, fmt.Errorf("format %s: %w", GGUF, err)
	}
	tokenizer, err := ggufTokenizer(s)
	if err != nil {
		return nil, nil, fmt.Errorf("format %s: data.tokenizer: %w", GGUF, err)
	}
	fileType := map[DType]uint32{Float32: 0, Float16: 1, Q8_0: 7, BFloat16: 32}[o.DType]
	all := []gguf.Pair{
		{Key: "general.architecture", Value: arch}, {Key: "general.name", Value: s.Name},
		{Key: "general.file_type", Value: fileType}, {Key: "general.quantization_version", Value: uint32(2)},
		{Key: "general.alignment", Value: uint32(32)},
	}
	for _, p := range header {
		all = append(all, gguf.Pair{Key: arch + "." + p.Key, Value: p.Value})
	}
	all = append(all, tokenizer...)
	x := &Exported{Class: "llama.cpp's " + arch}
	var tensors []gguf.Tensor
	for _, t := range list {
		kind, note := ggufType(t, o.DType)
		if note != "" {
			x.Notes = append(x.Notes, note)
		}
		tensors = append(tensors, gguf.Tensor{Name: t.name, Shape: t.shape, Type: kind, Write: func(w io.Writer) error {
			return s.writeGGUF(w, t, kind)
		}})
	}
	return x, []checkpoint.File{{Name: ggufFile, Write: func(w io.Writer) error { return gguf.Write(w, all, tensors) }}}, nil
}

// ggufType returns the type of a tensor in a file of type d: llama.cpp requires vectors, the
// convolution and A in float32.
func ggufType(t tensor, d DType) (kind gguf.Type, note string) {
	if len(t.shape) < 2 || !strings.HasSuffix(t.name, ".weight") || strings.HasSuffix(t.name, "ssm_conv1d.weight") {
		return gguf.F32, ""
	}
	switch d {
	case Float16:
		return gguf.F16, ""
	case BFloat16:
		return gguf.BF16, ""
	case Q8_0:
		if width := t.shape[len(t.shape)-1]; width%gguf.BlockSize != 0 {
			return gguf.F32, fmt.Sprintf("%s is in float32: rows of %d don't divide into %s's blocks of %d", t.name, width, Q8_0, gguf.BlockSize)
		}
		return gguf.Q8_0, ""
	}
	return gguf.F32, ""
}

func (s *Source) writeGGUF(w io.Writer, t tensor, kind gguf.Type) error {
	x, err := s.read(t)
	if err != nil {
		return err
	}
	var raw []byte
	switch kind {
	case gguf.Q8_0:
		raw, err = gguf.AppendQ8_0(nil, x)
	case gguf.F16:
		raw, err = safetensors.AppendFloats(nil, safetensors.F16, x)
	case gguf.BF16:
		raw, err = safetensors.AppendFloats(nil, safetensors.BF16, x)
	default:
		raw, err = safetensors.AppendFloats(nil, safetensors.F32, x)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}

// ggufModel returns the architecture, its keys (without the architecture's name as prefix), and its
// tensors.
func ggufModel(s *Source, stack []layers.Sublayer) (arch string, header []gguf.Pair, list []tensor, err error) {
	has := map[string]bool{}
	for _, l := range stack {
		has[l.Name] = true
	}
	switch {
	case len(has) == 1 && has["mamba"]:
		header, list, err = ggufMamba(s, stack)
		return "mamba", header, list, err
	case len(has) == 2 && has["attn"] && has["mlp"]:
		header, list, err = ggufLlama(s, stack)
		return "llama", header, list, err
	case len(has) == 2 && has["swa"] && has["mlp"]:
		return "", nil, nil, errors.New("llama.cpp's llama has no sliding window, and would see all tokens before; only models of attn and mlp, or of mamba alone, can be written")
	}
	return "", nil, nil, fmt.Errorf("llama.cpp has no architecture for a stack of %s; only models of attn and mlp, or of mamba alone, can be written", strings.Join(mixersOf(stack), ", "))
}

// mixersOf returns the different mixers of a stack, in order of appearance.
func mixersOf(stack []layers.Sublayer) []string {
	var list []string
	seen := map[string]bool{}
	for _, l := range stack {
		if !seen[l.Name] {
			list = append(list, l.Name)
		}
		seen[l.Name] = true
	}
	return list
}

// ggufEnds returns the tensors before and after the layers.
func (s *Source) ggufEnds() []tensor {
	list := []tensor{s.plain("token_embd.weight", embeddings), s.plain("output_norm.weight", "model.norm_f.weight")}
	if !s.Model.TieEmbeddings {
		list = append(list, s.plain("output.weight", head))
	}
	return list
}

func ggufMamba(s *Source, stack []layers.Sublayer) ([]gguf.Pair, []tensor, error) {
	var mambas []layers.Mamba
	for _, l := range stack {
		mambas = append(mambas, l.Mixer.(layers.Mamba))
	}
	m, err := same(mambas, "llama.cpp's mamba: the layers' settings")
	if err != nil {
		return nil, nil, err
	}
	if m.Expand != 2 {
		return nil, nil, fmt.Errorf("llama.cpp's mamba is twice as wide inside; this model's expand is %v", m.Expand)
	}
	d := s.Model.DModel
	header := []gguf.Pair{
		{Key: "context_length", Value: uint32(1 << 20)}, // states have no limit; converters write this number
		{Key: "embedding_length", Value: uint32(d)}, {Key: "feed_forward_length", Value: uint32(0)},
		{Key: "attention.head_count", Value: uint32(0)}, {Key: "block_count", Value: uint32(len(stack))},
		{Key: "ssm.conv_kernel", Value: uint32(m.DConv)}, {Key: "ssm.inner_size", Value: uint32(2 * d)},
		{Key: "ssm.state_size", Value: uint32(m.DState)}, {Key: "ssm.time_step_rank", Value: uint32(m.DTRank.Or((d + 15) / 16))},
		{Key: "ssm.dt_b_c_rms", Value: false}, {Key: "attention.layer_norm_rms_epsilon", Value: float32(s.Model.NormEps)},
	}
	list := s.ggufEnds()
	for i := range stack {
		ours, theirs := fmt.Sprintf("model.layers.%d.", i), fmt.Sprintf("blk.%d.", i)
		list = append(list, s.plain(theirs+"attn_norm.weight", ours+"norm.weight"))
		for _, p := range []struct{ theirs, ours string }{
			{"ssm_in.weight", "in_proj.weight"}, {"ssm_conv1d.bias", "conv1d.bias"}, {"ssm_x.weight", "x_proj.weight"},
			{"ssm_dt.weight", "dt_proj.weight"}, {"ssm_dt.bias", "dt_proj.bias"}, {"ssm_d", "D"}, {"ssm_out.weight", "out_proj.weight"},
		} {
			list = append(list, s.plain(theirs+p.theirs, ours+"mixer."+p.ours))
		}
		conv := s.plain(theirs+"ssm_conv1d.weight", ours+"mixer.conv1d.weight")
		conv.shape = []int{conv.shape[0], conv.shape[2]}
		a := s.plain(theirs+"ssm_a", ours+"mixer.A_log")
		a.make = func(parts [][]float32) []float32 {
			for i, x := range parts[0] {
				parts[0][i] = float32(-math.Exp(float64(x)))
			}
			return parts[0]
		}
		list = append(list, conv, a)
	}
	return header, list, nil
}

func ggufLlama(s *Source, stack []layers.Sublayer) ([]gguf.Pair, []tensor, error) {
	const arch = "llama.cpp's llama"
	blocks, a, mlp, err := uniform(stack, arch)
	if err != nil {
		return nil, nil, err
	}
	d := s.Model.DModel
	header := []gguf.Pair{
		{Key: "vocab_size", Value: uint32(s.Model.VocabSize)}, {Key: "context_length", Value: uint32(s.SeqLen)},
		{Key: "embedding_length", Value: uint32(d)}, {Key: "block_count", Value: uint32(len(blocks))},
		{Key: "feed_forward_length", Value: uint32(mlp.DFF)},
		{Key: "attention.head_count", Value: uint32(a.Heads)}, {Key: "attention.head_count_kv", Value: uint32(a.KVHeads)},
		{Key: "attention.key_length", Value: uint32(a.HeadDim)}, {Key: "attention.value_length", Value: uint32(a.HeadDim)},
		{Key: "rope.dimension_count", Value: uint32(a.HeadDim)}, {Key: "rope.freq_base", Value: float32(a.RopeBase)},
		{Key: "attention.layer_norm_rms_epsilon", Value: float32(s.Model.NormEps)},
	}
	list := s.ggufEnds()
	for i := range blocks {
		mixer, mlp, theirs := fmt.Sprintf("model.layers.%d.", 2*i), fmt.Sprintf("model.layers.%d.", 2*i+1), fmt.Sprintf("blk.%d.", i)
		for _, p := range []struct{ theirs, ours string }{
			{"attn_norm.weight", mixer + "norm.weight"}, {"attn_v.weight", mixer + "mixer.v_proj.weight"},
			{"attn_output.weight", mixer + "mixer.o_proj.weight"}, {"ffn_norm.weight", mlp + "norm.weight"},
			{"ffn_gate.weight", mlp + "mixer.gate_proj.weight"}, {"ffn_up.weight", mlp + "mixer.up_proj.weight"},
			{"ffn_down.weight", mlp + "mixer.down_proj.weight"},
		} {
			list = append(list, s.plain(theirs+p.theirs, p.ours))
		}
		for _, name := range []string{"q", "k"} {
			t := s.plain(theirs+"attn_"+name+".weight", mixer+"mixer."+name+"_proj.weight")
			t.make = func(parts [][]float32) []float32 { return interleaved(parts[0], a.HeadDim, d) }
			list = append(list, t)
		}
	}
	return header, list, nil
}

// interleaved reorders the rows, d wide, of each head's queries or keys: llama.cpp's llama rotates
// rows 2i and 2i+1 together, this program i and i+headDim/2.
func interleaved(x []float32, headDim, d int) []float32 {
	out := make([]float32, 0, len(x))
	for head := 0; head < len(x); head += headDim * d {
		for i := range headDim / 2 {
			for _, row := range []int{i, i + headDim/2} {
				out = append(out, x[head+row*d:head+(row+1)*d]...)
			}
		}
	}
	return out
}
