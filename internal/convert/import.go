package convert

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/layers"
)

// Imported is another program's model, open for reading.
type Imported struct {
	// Class is the class that wrote it.
	Class string
	Model *layers.Model

	dir     string
	tensors *safetensors.Set
	prefix  []prefix
}

// Open opens a folder with the config.json and safetensors of a Mamba, Llama or Mistral model of
// Transformers, a Samba model of flash-linear-attention, a Mamba model of state-spaces/mamba, or a
// model exported as safetensors.
func Open(dir string) (*Imported, error) {
	text, err := os.ReadFile(filepath.Join(dir, configFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: no such folder", dir)
		}
		return nil, fmt.Errorf("%s: holds no model of another program: it has no %s", dir, configFile)
	}
	if err != nil {
		return nil, err
	}
	f, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, configFile), err)
	}
	m, err := f.model()
	if err == nil {
		if err = m.Validate(); err != nil {
			err = fmt.Errorf("it describes a model that can't be: %w", err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, configFile), err)
	}
	paths, err := weightFiles(dir)
	if err != nil {
		return nil, err
	}
	set, err := safetensors.OpenSet(paths...)
	if err != nil {
		return nil, err
	}
	return &Imported{Class: f.class(), Model: m, dir: dir, tensors: set, prefix: f.prefixes()}, nil
}

// Close closes the files.
func (x *Imported) Close() error { return x.tensors.Close() }

// parseConfig decodes a config.json on top of the defaults of its class.
func parseConfig(text []byte) (family, error) {
	var kind struct {
		ModelType string          `json:"model_type"`
		SSM       json.RawMessage `json:"ssm_cfg"`
		Quantized any             `json:"quantization_config"`
	}
	if err := decode(text, &kind); err != nil {
		return nil, err
	}
	if kind.Quantized != nil {
		return nil, errors.New("quantization_config: is set; only plain weights can be read")
	}
	var f family
	switch {
	case kind.ModelType == "mamba":
		f = defaultMamba()
	case kind.ModelType == "llama":
		f = defaultLlama()
	case kind.ModelType == "mistral":
		f = defaultMistral()
	case kind.ModelType == "samba":
		f = defaultSamba()
	case kind.ModelType == ownType:
		f = &own{}
	case kind.ModelType == "" && kind.SSM != nil:
		f = defaultOriginalMamba()
	default:
		return nil, fmt.Errorf("model_type: is %q; models of type mamba, llama, mistral, samba and %s can be read", kind.ModelType, ownType)
	}
	return f, decode(text, f)
}

// decode is json.Unmarshal with an error that names the key.
func decode(text []byte, v any) error {
	err := json.Unmarshal(text, v)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		want := wrong.Type.String()
		if kind := wrong.Type.Kind(); kind == reflect.Struct || kind == reflect.Map {
			want = "object"
		}
		return fmt.Errorf("%s: must be of type %s, is %s", cmp.Or(wrong.Field, "the file"), want, wrong.Value)
	}
	return err
}

// weightFiles returns the safetensors files of a folder: a single file, or those of an index.
func weightFiles(dir string) ([]string, error) {
	one := filepath.Join(dir, weightsFile)
	if _, err := os.Lstat(one); err == nil {
		return []string{one}, nil // if it can't be read, opening it says why
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	path := filepath.Join(dir, indexFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if pickled, _ := filepath.Glob(filepath.Join(dir, "*.bin")); len(pickled) > 0 {
			return nil, fmt.Errorf("%s: weights in Python's pickle format are not read; save the model as safetensors (save_pretrained with safe_serialization=True)", pickled[0])
		}
		return nil, fmt.Errorf("%s: has no %s and no %s", dir, weightsFile, indexFile)
	}
	if err != nil {
		return nil, err
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := decode(text, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(index.WeightMap) == 0 {
		return nil, fmt.Errorf("%s: weight_map: names no file", path)
	}
	var list []string
	for _, name := range index.WeightMap {
		if !filepath.IsLocal(name) || name != filepath.Base(name) {
			return nil, fmt.Errorf("%s: %q is not a file of the folder", path, name)
		}
		if file := filepath.Join(dir, name); !slices.Contains(list, file) {
			list = append(list, file)
		}
	}
	slices.Sort(list)
	return list, nil
}

// missing is the error for a parameter that is not among the tensors under the name that it should
// have there.
func (x *Imported) missing(name, parameter string) error {
	switch _, pth := x.tensors.Entry(pthEmbeddings); {
	case pth:
		return fmt.Errorf("%s: its tensors have the names of the paper's code, which are not read: export with --format %s", x.dir, Safetensors)
	case name != parameter:
		return fmt.Errorf("%s: has no tensor %s, which is %s here", x.dir, name, parameter)
	}
	return fmt.Errorf("%s: has no tensor %s", x.dir, name)
}

// Read fills the Data of the model's parameters. Each must be among the tensors with the same
// shape, and finite, and no tensor may be left over.
func (x *Imported) Read(parameters []checkpoint.Tensor) error {
	left := map[string]bool{}
	for _, e := range x.tensors.Entries() {
		left[e.Name] = true
	}
	for _, p := range parameters {
		name := rename(p.Name, x.prefix)
		e, ok := x.tensors.Entry(name)
		if !ok {
			return x.missing(name, p.Name)
		}
		if !slices.Equal(e.Shape, p.Shape) {
			return fmt.Errorf("%s: tensor %s: shape is %v, %s says %v", x.dir, name, e.Shape, configFile, p.Shape)
		}
		if err := x.tensors.ReadAsFloat32(name, p.Data); err != nil {
			return err
		}
		delete(left, name)
	}
	for name := range left {
		if strings.HasSuffix(name, ".rotary_emb.inv_freq") {
			delete(left, name) // redundant with rope_theta
		}
	}
	if left[head] && x.Model.TieEmbeddings {
		if err := x.sameHead(parameters); err != nil {
			return err
		}
		delete(left, head)
	}
	for _, e := range x.tensors.Entries() {
		if left[e.Name] {
			return fmt.Errorf("%s: tensor %s belongs to nothing that %s describes", x.dir, e.Name, configFile)
		}
	}
	if err := checkpoint.Finite(parameters); err != nil {
		return fmt.Errorf("%s: %w, and could not be trained further", x.dir, err)
	}
	return nil
}

// sameHead rejects a stored head that differs from the embedding that it should be tied to.
func (x *Imported) sameHead(parameters []checkpoint.Tensor) error {
	i := slices.IndexFunc(parameters, func(t checkpoint.Tensor) bool { return t.Name == embeddings })
	weights := make([]float32, len(parameters[i].Data))
	if err := x.tensors.ReadAsFloat32(head, weights); err != nil {
		return err
	}
	if !slices.Equal(weights, parameters[i].Data) {
		return fmt.Errorf("%s: tie_word_embeddings is true, but %s differs from the embeddings", x.dir, head)
	}
	return nil
}

// SameTokenizer reports whether the folder's tokenizer.json or tokenizer.model equals that of
// files. A folder without either counts as equal.
func (x *Imported) SameTokenizer(files map[string][]byte) (bool, error) {
	found := false
	for _, name := range []string{"tokenizer.json", "tokenizer.model"} {
		theirs, err := os.ReadFile(filepath.Join(x.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		found = true
		if bytes.Equal(theirs, files[name]) || sameJSON(theirs, files[name]) {
			return true, nil
		}
	}
	return !found, nil
}

// sameJSON reports whether two texts are the same JSON, whatever their formatting.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
