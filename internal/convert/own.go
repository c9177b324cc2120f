package convert

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/layers"
)

// ownType is the model_type of this program's own config.json.
const ownType = "sambatrain"

// own is the part of that config.json that is read back.
type own struct {
	Model json.RawMessage `json:"model"`
}

func (*own) class() string { return "model of this program" }

func (c *own) model() (*layers.Model, error) {
	m := layers.Defaults()
	if err := yaml.UnmarshalWithOptions(c.Model, &m, yaml.Strict()); err != nil { // as recipes are
		line, _, _ := strings.Cut(err.Error(), "\n")
		return nil, fmt.Errorf("model: %s", line)
	}
	return &m, nil
}

func (*own) prefixes() []prefix { return nil }
