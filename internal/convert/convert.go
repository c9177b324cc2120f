// Package convert writes a run's model in the file formats of other programs, and reads theirs.
//
// Each format is a list of tensors with that program's names, made from the run's parameters, and a
// description of the model in that program's terms. A model that a format cannot represent exactly
// is refused with the reason, never approximated.
package convert

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/layers"
)

// Format is a layout of exported models.
type Format string

// The formats.
const (
	// Safetensors is the project's own format: the run's parameter names, and its model section.
	Safetensors Format = "safetensors"
	// HF is the format loaded by Transformers' MambaForCausalLM, LlamaForCausalLM and
	// MistralForCausalLM, and by flash-linear-attention's SambaForCausalLM.
	HF Format = "hf"
	// SambaPth is safetensors with the names used in checkpoints of the paper's own code.
	SambaPth Format = "samba-pth-names"
	// GGUF is the format of llama.cpp.
	GGUF Format = "gguf"
)

// Formats lists all of them.
var Formats = []Format{Safetensors, HF, SambaPth, GGUF}

// DType is the type of exported weights.
type DType string

// The types. Q8_0 is only for GGUF: blocks of 32 8-bit numbers with a common scale.
const (
	Float32  DType = "float32"
	BFloat16 DType = "bfloat16"
	Float16  DType = "float16"
	Q8_0     DType = "q8_0"
)

// DTypes lists all of them.
var DTypes = []DType{Float32, BFloat16, Float16, Q8_0}

// element returns the type's name in safetensors.
func (d DType) element() safetensors.DType {
	switch d {
	case BFloat16:
		return safetensors.BF16
	case Float16:
		return safetensors.F16
	}
	return safetensors.F32
}

// Source is a trained model.
type Source struct {
	Name        string
	Model       *layers.Model
	Parameters  *checkpoint.Tensors
	Tokenizer   data.Tokenizer
	SeqLen      int   // tokens per row in training
	Step        int64 // optimizer steps done
	CodeVersion string
}

// Options say what Export writes.
type Options struct {
	Format Format
	DType  DType
	// MaxShard is the maximum number of bytes of tensors in one safetensors file; a larger model
	// gets several files and an index.
	MaxShard int64
}

// DefaultMaxShard is the default of Transformers.
const DefaultMaxShard = 5_000_000_000

// Validate rejects combinations that no model could be written with.
func (o Options) Validate() error {
	switch {
	case !slices.Contains(Formats, o.Format):
		return fmt.Errorf("format: must be one of %s, is %q", join(Formats), o.Format)
	case !slices.Contains(DTypes, o.DType):
		return fmt.Errorf("dtype: must be one of %s, is %q", join(DTypes), o.DType)
	case o.DType == Q8_0 && o.Format != GGUF:
		return fmt.Errorf("dtype: %s is for format %s alone", Q8_0, GGUF)
	case o.MaxShard < 1:
		return fmt.Errorf("max-shard-size: must be at least 1 byte, is %d", o.MaxShard)
	}
	return nil
}

func join[T ~string](list []T) string {
	text := make([]string, len(list))
	for i, x := range list {
		text[i] = string(x)
	}
	return strings.Join(text, ", ")
}

// Exported says what Export wrote.
type Exported struct {
	// Class is what loads the export: "MambaForCausalLM", "llama.cpp's mamba".
	Class string
	// Notes are for people, one per line.
	Notes []string
}

// Export writes the model into the folder dir, which must be empty or not exist. The folder appears
// complete or not at all.
func Export(s *Source, dir string, o Options) (*Exported, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var x *Exported
	var files []checkpoint.File
	err := s.checkParameters()
	if err == nil {
		x, files, err = export(s, o)
	}
	if err == nil {
		var recovered []string
		recovered, err = checkpoint.WriteFolder(dir, files)
		x.Notes = append(x.Notes, recovered...)
	}
	if err != nil {
		return nil, fmt.Errorf("export to %s: %w", dir, err)
	}
	return x, nil
}

// checkParameters rejects parameters that aren't those of the model.
func (s *Source) checkParameters() error {
	plan, err := generate.Plan(s.Model, 1, 1, 1, layers.Precision{})
	if err != nil {
		return err
	}
	want := make([]checkpoint.Tensor, len(plan.Params))
	for i, p := range plan.Params {
		want[i] = checkpoint.Tensor{Name: p.Name, Shape: p.Shape}
	}
	return s.Parameters.Match(want)
}

func export(s *Source, o Options) (*Exported, []checkpoint.File, error) {
	switch o.Format {
	case HF:
		return exportHF(s, o)
	case SambaPth:
		return exportPth(s, o)
	case GGUF:
		return exportGGUF(s, o)
	}
	return exportOwn(s, o)
}

// exportOwn writes the project's own format.
func exportOwn(s *Source, o Options) (*Exported, []checkpoint.File, error) {
	var list []tensor
	for _, e := range s.Parameters.Entries() {
		list = append(list, tensor{name: e.Name, shape: e.Shape, parts: []string{e.Name}})
	}
	files, err := s.safetensors(list, o)
	if err != nil {
		return nil, nil, err
	}
	config, err := s.ownConfig(o)
	return &Exported{Class: "sambatrain"}, slices.Concat(files, []checkpoint.File{config}, s.tokenizerFiles()), err
}
