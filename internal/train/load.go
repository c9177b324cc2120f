package train

import (
	"log/slog"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// Model is a trained model, loaded to be used and not to be trained on.
type Model struct {
	Recipe     *recipes.Recipe
	Checkpoint *checkpoint.Checkpoint
	Model      *layers.Model
	Tokenizer  data.Tokenizer
	Device     graph.Device
	Memory     graph.Memory
	// Mixed: programs of the model keep tensors in bfloat16.
	Mixed bool
}

// Close frees the device.
func (m *Model) Close() error { return m.Device.Close() }

// Newest is a run's recipe and its newest good checkpoint. Damaged newer ones are
// reported to log. sets change keys of the recipe.
func Newest(dir string, log *slog.Logger, sets ...string) (*recipes.Recipe, *checkpoint.Checkpoint, error) {
	r, err := LoadConfig(dir, sets...)
	if err != nil {
		return nil, nil, err
	}
	c, skipped, err := checkpoint.Newest(dir)
	for _, bad := range skipped {
		log.Error("checkpoint is damaged and passed over", "checkpoint", bad.Dir, "reason", bad.Err)
	}
	return r, c, err
}

// LoadModel loads a run's newest good checkpoint on its recipe's device. sets change
// keys of the recipe, such as that device.
func LoadModel(dir string, log *slog.Logger, sets ...string) (*Model, error) {
	r, c, err := Newest(dir, log, sets...)
	if err != nil {
		return nil, err
	}
	m := &Model{Recipe: r, Checkpoint: c, Model: &r.Model}
	if m.Tokenizer, err = data.NewTokenizer(r.Data.Tokenizer); err != nil {
		return nil, err
	}
	if m.Device, err = NewDevice(r.Run, log); err != nil {
		return nil, err
	}
	m.Mixed = mixedPlan(m.Device, r.Run.Mixed())
	// Any program of the model has the parameters' layout.
	plan, err := generate.Plan(m.Model, 1, 1, 1, m.Mixed)
	if err != nil {
		m.Device.Close()
		return nil, err
	}
	if m.Memory, err = m.Device.NewMemory(plan.Sizes); err == nil {
		list := hostTensors(plan.Params, "")
		if err = c.ReadModel(list); err == nil {
			err = writeTensors(m.Memory, graph.Params, plan.Params, list)
		}
	}
	if err == nil && m.Mixed {
		var cast graph.Program
		if cast, err = loadCast(m.Device, m.Memory, plan.Sizes[graph.Params]); err == nil {
			err = cast.Run()
		}
	}
	if err != nil {
		m.Device.Close()
		return nil, err
	}
	return m, nil
}

// Logits are the scores [T V] of each token's successors.
func (m *Model) Logits(tokens []int32) ([]float32, error) {
	return runLogits(m.Device, m.Memory, m.Model, 1, tokens, m.Mixed)
}
