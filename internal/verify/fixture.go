package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
)

// Format is the metadata's `format` of the fixtures that this package reads.
const Format = "sambatrain-fixture-1"

// fixture is an open file with its metadata decoded.
type fixture struct {
	file            *safetensors.File
	model           layers.Model
	optim           optim.AdamW
	totalSteps      int64
	b, t            int
	tokens, targets []int32
	rounded         bool // see Tolerances.Norms
	measure         func(a, b []float32) float64
}

func open(path string) (*fixture, error) {
	file, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	return newFixture(file, path)
}

func newFixture(file *safetensors.File, path string) (*fixture, error) {
	f := &fixture{file: file, model: layers.Defaults(), optim: optim.DefaultAdamW()}
	if err := f.read(); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (f *fixture) read() error {
	meta := f.file.Metadata()
	if meta["format"] != Format {
		return fmt.Errorf("metadata `format` is %q, want %q", meta["format"], Format)
	}
	for _, key := range []string{"model", "optimizer"} {
		if meta[key] == "" {
			return fmt.Errorf("no metadata `%s`", key)
		}
	}
	if err := yaml.UnmarshalWithOptions([]byte(meta["model"]), &f.model, yaml.Strict()); err != nil {
		return fmt.Errorf("metadata `model`: %s", strings.SplitN(err.Error(), "\n", 2)[0])
	}
	if err := f.model.Validate(); err != nil {
		return err
	}
	var o map[string]any
	if err := json.Unmarshal([]byte(meta["optimizer"]), &o); err != nil {
		return fmt.Errorf("metadata `optimizer`: %w", err)
	}
	total, ok := o["total_steps"].(float64)
	if !ok {
		return errors.New("metadata `optimizer`: no total_steps")
	}
	f.totalSteps = int64(total)
	delete(o, "total_steps")
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalWithOptions(text, &f.optim, yaml.Strict()); err != nil {
		return fmt.Errorf("metadata `optimizer`: %s", strings.SplitN(err.Error(), "\n", 2)[0])
	}
	if err := f.optim.Validate(); err != nil {
		return err
	}
	in, ok := f.file.Entry("input.tokens")
	if !ok || len(in.Shape) != 2 {
		return errors.New("no input.tokens [B T]")
	}
	if targets, ok := f.file.Entry("input.targets"); !ok || !slices.Equal(targets.Shape, in.Shape) {
		return fmt.Errorf("no input.targets of the shape %v of input.tokens", in.Shape)
	}
	f.b, f.t = in.Shape[0], in.Shape[1]
	f.tokens, f.targets = make([]int32, f.b*f.t), make([]int32, f.b*f.t)
	if err := f.file.ReadInt32("input.tokens", f.tokens); err != nil {
		return err
	}
	if err := f.file.ReadInt32("input.targets", f.targets); err != nil {
		return err
	}
	if i := slices.IndexFunc(slices.Concat(f.tokens, f.targets), func(id int32) bool { return id < 0 || int(id) >= f.model.VocabSize }); i >= 0 {
		return fmt.Errorf("a token of input.tokens or input.targets is outside the vocabulary of %d", f.model.VocabSize)
	}
	return nil
}

func (f *fixture) floats(name string, n int) ([]float32, error) {
	e, ok := f.file.Entry(name)
	if !ok {
		return nil, fmt.Errorf("no tensor %s", name)
	}
	if got := graph.Shape(e.Shape).Size(); got != n {
		return nil, fmt.Errorf("tensor %s has %d elements, want %d", name, got, n)
	}
	x := make([]float32, n)
	return x, f.file.ReadFloat32(name, x)
}

// load copies the fixture's parameters into the engine; both must have the same ones.
func (f *fixture) load(e *train.Engine) error {
	known := map[string]bool{}
	for _, p := range e.Params() {
		w, err := f.floats("param."+p.Name, p.Shape.Size())
		if err != nil {
			return err
		}
		if err := e.Memory().Write(graph.Params, p.Offset, w); err != nil {
			return err
		}
		known["param."+p.Name] = true
	}
	for _, entry := range f.file.Entries() {
		if strings.HasPrefix(entry.Name, "param.") && !known[entry.Name] {
			return fmt.Errorf("tensor %s is not a parameter of this model", entry.Name)
		}
	}
	return e.WeightsWritten()
}
