package layers

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/graph"
)

// Model is a recipe's `model:` section: a stack of residual sublayers
// x = x + mixer(rms_norm(x)), or x = mixer(x) where that is a StreamMixer, between an
// embedding and a linear head.
type Model struct {
	VocabSize int     `yaml:"vocab_size" json:"vocab_size"`
	DModel    int     `yaml:"d_model" json:"d_model"`
	NormEps   float64 `yaml:"norm_eps" json:"norm_eps"`
	// TieEmbeddings makes the head use the embedding's weight.
	TieEmbeddings bool `yaml:"tie_embeddings" json:"tie_embeddings"`
	// Init is the initialization scheme: mamba or llama.
	Init   string `yaml:"init" json:"init"`
	Layers Stack  `yaml:"layers" json:"layers"`
	// The settings of the mixers in Layers, unless a place overrides them.
	Mamba     Mamba     `yaml:"mamba" json:"mamba"`
	Attention Attention `yaml:"attention" json:"attention"`
	MLP       SwiGLU    `yaml:"mlp" json:"mlp"`
	GLA       GLA       `yaml:"gla" json:"gla"`
	Retention Retention `yaml:"retention" json:"retention"`
	Mega      Mega      `yaml:"mega" json:"mega"`
}

// Stack is a pattern of mixers and the number of its repetitions.
type Stack struct {
	Pattern []Place `yaml:"pattern,flow" json:"pattern"`
	Repeat  int     `yaml:"repeat" json:"repeat"`
}

// Place is one entry of a pattern: a mixer's name, or a map with the mixer's name as its only key
// and the settings that differ here: `{mlp: {d_ff: 3072}}`.
type Place struct {
	Mixer    string
	Settings map[string]any
}

// Mixer is the part of a sublayer that processes the normalized stream.
type Mixer interface {
	// Forward maps x [B T D] to the tensor that is added to the stream, of the same shape.
	Forward(b *graph.Builder, x graph.Tensor) graph.Tensor
}

// StreamMixer is a mixer with its own norm and residual connection: its Forward maps the stream
// itself to its replacement.
type StreamMixer interface {
	Mixer
	replacesStream()
}

// Sublayer is one place of the whole stack with its settings resolved.
type Sublayer struct {
	Name  string
	Mixer Mixer
}

// Mixers are the names that a pattern may use.
var Mixers = []string{"mamba", "attn", "swa", "mlp", "gla", "retention", "mega"}

// Defaults returns the model section before a recipe's keys are applied: Samba's values (SAMBA
// Table 12) where they are common to all its sizes.
func Defaults() Model {
	return Model{
		NormEps:       1e-5,
		TieEmbeddings: true,
		Init:          InitMamba,
		Layers:        Stack{Repeat: 1},
		Mamba:         Mamba{Expand: 2, DState: 16, DConv: 4},
		Attention:     Attention{Heads: 4, RopeBase: 10000},
		GLA:           GLA{Heads: 4, ExpandK: 0.5, ExpandV: 1, GateLowRank: 16, GateLogitNormalizer: 16},
		Retention:     Retention{Heads: 4, ExpandK: 1, ExpandV: 2, RopeBase: 10000},
		Mega:          Mega{ZDim: 128, Chunk: 2048, DState: 16, DConv: 4},
	}
}

func (m *Model) initializer() initializer {
	return initializer{m.Init, m.DModel, m.Depth()}
}

// Sublayers resolves every place of the stack.
func (m *Model) Sublayers() ([]Sublayer, error) {
	var pattern []Sublayer
	for i, p := range m.Layers.Pattern {
		mixer, section, err := m.mixer(p)
		if err != nil {
			switch {
			case section == "":
				return nil, fmt.Errorf("model.layers.pattern[%d]: %w", i, err)
			case len(p.Settings) > 0:
				section = fmt.Sprintf("layers.pattern[%d].%s", i, p.Mixer)
			}
			return nil, fmt.Errorf("model.%s.%w", section, err)
		}
		pattern = append(pattern, Sublayer{p.Mixer, mixer})
	}
	return slices.Repeat(pattern, m.Layers.Repeat), nil
}

// mixer resolves a place, and returns the section that its settings come from; an error without a
// section is about the place itself.
func (m *Model) mixer(p Place) (mixer Mixer, section string, err error) {
	switch p.Mixer {
	case "mamba":
		c := m.Mamba
		if err := override(&c, p); err != nil {
			return nil, "", err
		}
		c.init = m.initializer()
		return c, "mamba", c.validate(m.DModel)
	case "attn", "swa":
		c := m.Attention
		if err := override(&c, p); err != nil {
			return nil, "", err
		}
		c.init = m.initializer()
		c, err = c.resolved(m.DModel, p.Mixer == "swa")
		return c, "attention", err
	case "mlp":
		c := m.MLP
		if err := override(&c, p); err != nil {
			return nil, "", err
		}
		c.init = m.initializer()
		return c, "mlp", c.validate()
	case "gla":
		c := m.GLA
		if err := override(&c, p); err != nil {
			return nil, "", err
		}
		c.init, c.normEps = m.initializer(), m.NormEps
		return c, "gla", c.validate(m.DModel)
	case "retention":
		c := m.Retention
		if err := override(&c, p); err != nil {
			return nil, "", err
		}
		c.init, c.normEps = m.initializer(), m.NormEps
		return c, "retention", c.validate(m.DModel)
	case "mega":
		c := m.Mega
		if err := override(&c, p); err != nil {
			return nil, "", err
		}
		c.init, c.normEps = m.initializer(), m.NormEps
		return c, "mega", c.validate()
	}
	return nil, "", unknownMixer(p.Mixer)
}

// Settings returns the zero value of the settings that a place can override for a mixer.
func Settings(mixer string) (any, error) {
	switch mixer {
	case "mamba":
		return Mamba{}, nil
	case "attn", "swa":
		return Attention{}, nil
	case "mlp":
		return SwiGLU{}, nil
	case "gla":
		return GLA{}, nil
	case "retention":
		return Retention{}, nil
	case "mega":
		return Mega{}, nil
	}
	return nil, unknownMixer(mixer)
}

func unknownMixer(name string) error {
	for _, m := range Mixers {
		if levenshtein.ComputeDistance(name, m) == 1 {
			return fmt.Errorf("no mixer %q (did you mean %s?); the mixers are %s", name, m, strings.Join(Mixers, ", "))
		}
	}
	return fmt.Errorf("no mixer %q; the mixers are %s", name, strings.Join(Mixers, ", "))
}

// override sets the keys of a place's settings in *c. It rejects unknown keys and values of the
// wrong type.
func override[T any](c *T, p Place) error {
	if len(p.Settings) == 0 {
		return nil
	}
	if err := checkSettings(reflect.TypeFor[T](), p); err != nil {
		return err
	}
	text, err := json.Marshal(p.Settings)
	if err == nil {
		err = json.Unmarshal(text, c)
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s.%s: must be of type %v, is %s", p.Mixer, wrong.Field, wrong.Type, wrong.Value)
	}
	if err != nil {
		return fmt.Errorf("%s: %s", p.Mixer, strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// checkSettings rejects keys that t doesn't have. The JSON decoder would ignore their case.
func checkSettings(t reflect.Type, p Place) error {
	var known []string
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("json"); key != "" {
			known = append(known, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Settings)) {
		if slices.Contains(known, key) {
			continue
		}
		distance := func(k string) int { return levenshtein.ComputeDistance(strings.ToLower(key), k) }
		near := slices.MinFunc(known, func(a, b string) int { return distance(a) - distance(b) })
		return fmt.Errorf("%s: unknown key %s; did you mean %s?", p.Mixer, key, near)
	}
	return nil
}

// The largest sizes. They keep the product of any two from overflowing.
const (
	maxVocab     = 1 << 24
	maxWidth     = 1 << 20 // of the stream, and of a mixer's interior
	maxWindow    = 1 << 24 // tokens, as many as a row may have
	maxHidden    = 1 << 40 // of an MLP
	maxChunk     = 1 << 20 // tokens of attention
	maxSublayers = 10_000
)

// Validate checks the section; an error names the wrong key.
func (m *Model) Validate() error {
	switch {
	case m.VocabSize < 1 || m.VocabSize > maxVocab:
		return fmt.Errorf("model.vocab_size: must be 1 to %d, is %d", maxVocab, m.VocabSize)
	case m.DModel < 1 || m.DModel > maxWidth:
		return fmt.Errorf("model.d_model: must be 1 to %d, is %d", maxWidth, m.DModel)
	case !(float32(m.NormEps) > 0) || math.IsInf(float64(float32(m.NormEps)), 0):
		return fmt.Errorf("model.norm_eps: must be positive and finite in float32, is %v", m.NormEps)
	case m.Init != InitMamba && m.Init != InitLlama:
		return fmt.Errorf("model.init: must be %s or %s, is %q", InitMamba, InitLlama, m.Init)
	case len(m.Layers.Pattern) == 0:
		return fmt.Errorf("model.layers.pattern: must name at least one mixer: %s", strings.Join(Mixers, ", "))
	case m.Layers.Repeat < 1:
		return fmt.Errorf("model.layers.repeat: must be at least 1, is %d", m.Layers.Repeat)
	case m.Layers.Repeat > maxSublayers/len(m.Layers.Pattern):
		return fmt.Errorf("model.layers.repeat: %d times %d sublayers are more than %d", m.Layers.Repeat, len(m.Layers.Pattern), maxSublayers)
	case int64(m.VocabSize)*int64(m.DModel) > math.MaxInt32:
		return fmt.Errorf("model.vocab_size: an embedding of %d x %d is larger than this program can index", m.VocabSize, m.DModel)
	}
	_, err := m.Sublayers()
	return err
}

// UnmarshalYAML reads a place: a name, or a one-key map.
func (p *Place) UnmarshalYAML(text []byte) error {
	var name string
	if err := yaml.Unmarshal(text, &name); err == nil {
		*p = Place{Mixer: name}
	} else {
		var m map[string]map[string]any
		if err := yaml.Unmarshal(text, &m); err != nil || len(m) != 1 {
			return fmt.Errorf("a place of model.layers.pattern is a mixer's name or {name: {key: value}}, not %s", strings.TrimSpace(string(text)))
		}
		for k, v := range m {
			*p = Place{Mixer: k, Settings: v}
		}
	}
	if !slices.Contains(Mixers, p.Mixer) {
		return fmt.Errorf("model.layers.pattern: %w", unknownMixer(p.Mixer))
	}
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (p Place) MarshalYAML() (any, error) { return p.written(), nil }

// MarshalJSON writes the same as MarshalYAML.
func (p Place) MarshalJSON() ([]byte, error) { return json.Marshal(p.written()) }

func (p Place) written() any {
	if len(p.Settings) == 0 {
		return p.Mixer
	}
	return map[string]any{p.Mixer: p.Settings}
}

// Auto is an integer that a recipe may leave to be derived, as `auto`.
type Auto int

// Or returns the number, or `derived` if it is auto.
func (a Auto) Or(derived int) int {
	if a == 0 {
		return derived
	}
	return int(a)
}

// UnmarshalYAML reads a positive integer or auto.
func (a *Auto) UnmarshalYAML(text []byte) error {
	if s := strings.Trim(strings.TrimSpace(string(text)), `"'`); s == "auto" {
		*a = 0
		return nil
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 || n > maxWidth {
		return fmt.Errorf("must be auto or 1 to %d, is %s", maxWidth, strings.TrimSpace(string(text)))
	}
	*a = Auto(n)
	return nil
}

// UnmarshalJSON reads the same as UnmarshalYAML.
func (a *Auto) UnmarshalJSON(text []byte) error { return a.UnmarshalYAML(text) }

// MarshalYAML writes what UnmarshalYAML reads.
func (a Auto) MarshalYAML() (any, error) { return a.written(), nil }

// MarshalJSON writes the same as MarshalYAML.
func (a Auto) MarshalJSON() ([]byte, error) { return json.Marshal(a.written()) }

func (a Auto) written() any {
	if a == 0 {
		return "auto"
	}
	return int(a)
}
