package convert

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/internal/plainjson"
)

// tensor is one tensor of an exported model.
type tensor struct {
	name  string
	shape []int
	// parts are the parameters that it is made of.
	parts []string
	// make returns its elements, row by row; nil means that it is its only part, unchanged. make
	// may modify the parts.
	make func(parts [][]float32) []float32
}

func (t tensor) elements() int {
	n := 1
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// read returns the tensor's elements.
func (s *Source) read(t tensor) ([]float32, error) {
	parts := make([][]float32, len(t.parts))
	for i, name := range t.parts {
		e, ok := s.Parameters.Entry(name)
		if !ok {
			return nil, fmt.Errorf("the checkpoint has no parameter %q", name)
		}
		parts[i] = make([]float32, e.Bytes()/4)
		if err := s.Parameters.ReadFloat32(name, parts[i]); err != nil {
			return nil, err
		}
	}
	x := parts[0]
	if t.make != nil {
		x = t.make(parts)
	}
	if len(x) != t.elements() {
		return nil, fmt.Errorf("tensor %q: %d elements for shape %v", t.name, len(x), t.shape)
	}
	return x, nil
}

// shape returns a parameter's shape, or nil if there is none of that name.
func (s *Source) shape(name string) []int {
	e, _ := s.Parameters.Entry(name)
	return e.Shape
}

const (
	weightsFile = "model.safetensors"
	indexFile   = "model.safetensors.index.json"
	configFile  = "config.json"
)

// safetensors returns the weight files: one file, or shards and their index.
func (s *Source) safetensors(list []tensor, o Options) ([]checkpoint.File, error) {
	shards, total := shard(list, o)
	if len(shards) == 1 {
		return []checkpoint.File{s.weights(weightsFile, list, o)}, nil
	}
	index := struct {
		Metadata struct {
			TotalSize int64 `json:"total_size"`
		} `json:"metadata"`
		WeightMap map[string]string `json:"weight_map"`
	}{WeightMap: map[string]string{}}
	index.Metadata.TotalSize = total
	var files []checkpoint.File
	for i, part := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		files = append(files, s.weights(name, part, o))
		for _, t := range part {
			index.WeightMap[t.name] = name
		}
	}
	text, err := plainjson.Indented(index)
	return append(files, checkpoint.Bytes(indexFile, text)), err
}

// shard divides the tensors, in order, among files of at most o.MaxShard bytes. A larger tensor
// gets its own file.
func shard(list []tensor, o Options) (shards [][]tensor, total int64) {
	room := int64(0)
	for _, t := range list {
		size := int64(t.elements() * o.DType.element().Size())
		total += size
		if len(shards) == 0 || size > room {
			shards, room = append(shards, nil), o.MaxShard
		}
		shards[len(shards)-1] = append(shards[len(shards)-1], t)
		room -= size
	}
	return shards, total
}

// weights returns one safetensors file.
func (s *Source) weights(name string, list []tensor, o Options) checkpoint.File {
	return checkpoint.File{Name: name, Write: func(w io.Writer) error {
		d := o.DType.element()
		byName := map[string]tensor{}
		var entries []safetensors.Entry
		for _, t := range list {
			byName[t.name] = t
			entries = append(entries, safetensors.Entry{Name: t.name, DType: d, Shape: t.shape})
		}
		// Transformers only loads files that name a framework here.
		sw, err := safetensors.NewWriter(w, entries, map[string]string{"format": "pt"})
		if err != nil {
			return err
		}
		for _, e := range sw.Entries() {
			x, err := s.read(byName[e.Name])
			if err != nil {
				return err
			}
			raw, err := safetensors.AppendFloats(make([]byte, 0, e.Bytes()), d, x)
			if err != nil {
				return fmt.Errorf("tensor %q: %w", e.Name, err)
			}
			if err := sw.Write(e.Name, raw); err != nil {
				return err
			}
		}
		return sw.Finish()
	}}
}

func (s *Source) tokenizerFiles() []checkpoint.File {
	var list []checkpoint.File
	files := s.Tokenizer.ExportFiles()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		list = append(list, checkpoint.Bytes(name, files[name]))
	}
	return list
}

// ownConfig returns the project's own config.json.
func (s *Source) ownConfig(o Options) (checkpoint.File, error) {
	text, err := plainjson.Indented(struct {
		ModelType string `json:"model_type"`
		Version   string `json:"sambatrain_version"`
		Step      int64  `json:"step"`
		Model     any    `json:"model"`
		EOS       int32  `json:"eos_token_id"`
		DType     DType  `json:"dtype"`
	}{ownType, s.CodeVersion, s.Step, s.Model, s.Tokenizer.EOS(), o.DType})
	return checkpoint.Bytes(configFile, text), err
}
