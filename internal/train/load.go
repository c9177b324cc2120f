package train

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"

	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// Model is a trained model, loaded for use and not for further training.
type Model struct {
	Recipe     *recipes.Recipe
	Checkpoint *checkpoint.Checkpoint
	Model      *layers.Model
	Tokenizer  data.Tokenizer
	Device     graph.Device
	Memory     graph.Memory
	Params     []graph.ParamSlot
	// Precision is the precision of the model's programs, the same as in training.
	Precision layers.Precision
}

// Close frees the device.
func (m *Model) Close() error { return m.Device.Close() }

// Newest returns a run's recipe and its newest good checkpoint or, given a checkpoint's folder, its
// recipe and the checkpoint itself. Damaged newer ones are reported to log. sets change keys of the
// recipe.
func Newest(dir string, log *slog.Logger, sets ...string) (*recipes.Recipe, *checkpoint.Checkpoint, error) {
	return newestOpened(checkpoint.Opener{}, dir, log, sets...)
}

func newestOpened(o checkpoint.Opener, dir string, log *slog.Logger, sets ...string) (*recipes.Recipe, *checkpoint.Checkpoint, error) {
	r, err := TrainedConfig(dir, sets...)
	if err != nil {
		return nil, nil, err
	}
	if checkpoint.Is(dir) {
		c, err := o.Load(dir)
		return r, c, err
	}
	c, skipped, err := o.Newest(dir)
	LogSkipped(log, skipped)
	return r, c, err
}

// LogSkipped reports damaged checkpoints in whose place an older one is used.
func LogSkipped(log *slog.Logger, skipped []checkpoint.Skipped) {
	for _, bad := range skipped {
		log.Error("checkpoint is damaged and skipped", "checkpoint", bad.Dir, "reason", bad.Err)
	}
}

// parseWritten reads the recipe that a run or checkpoint was written with, in which all keys are
// given. If run.float32_sublayers is missing, no sublayer was in float32: the key did not exist.
// Recipes of generated rows used to keep keys of shards and text that were not read.
func parseWritten(text []byte, name string, sets ...string) (*recipes.Recipe, error) {
	if !bytes.Contains(text, []byte("float32_sublayers:")) {
		sets = append([]string{"run.float32_sublayers=0"}, sets...)
	}
	var was struct {
		Data struct{ Generate data.Generated }
	}
	if err := yaml.Unmarshal(text, &was); err == nil && was.Data.Generate.Task != "" {
		sets = append([]string{"data.generate.task=" + was.Data.Generate.Task}, sets...)
	}
	return recipes.Parse(text, name, sets...)
}

// TrainedConfig returns the resolved recipe of a run directory, or of a checkpoint's folder.
func TrainedConfig(dir string, sets ...string) (*recipes.Recipe, error) {
	if !checkpoint.Is(dir) {
		return LoadConfig(dir, sets...)
	}
	c, err := checkpoint.Describe(dir)
	if err != nil {
		return nil, err
	}
	text, err := c.ReadRecipe()
	if err != nil {
		return nil, err
	}
	if text == nil {
		return nil, fmt.Errorf("%s: the checkpoint holds no recipe; name its run's folder", dir)
	}
	r, err := parseWritten(text, dir, sets...)
	if err != nil {
		return nil, err
	}
	r.Run.Out = dir
	return r, nil
}

// LoadModel loads a run's newest good checkpoint, or the checkpoint in folder dir, on its recipe's
// device. sets change keys of the recipe, such as that device.
func LoadModel(dir string, log *slog.Logger, sets ...string) (*Model, error) {
	defer slow(log, "reading the checkpoint of the model")()
	const tries = 10
	for try := 1; ; try++ {
		m, c, err := loadNewest(dir, log, sets)
		// A run in progress may have removed the checkpoint before it was read.
		if err == nil || try == tries || c == nil || checkpoint.Is(dir) || !checkpoint.Gone(c.Dir) {
			return m, err
		}
	}
}

// loadNewest also returns the checkpoint that it has chosen if that can't be loaded.
func loadNewest(dir string, log *slog.Logger, sets []string) (*Model, *checkpoint.Checkpoint, error) {
	r, c, err := Newest(dir, log, sets...)
	if err != nil {
		return nil, nil, err
	}
	m := &Model{Recipe: r, Checkpoint: c, Model: &r.Model}
	if m.Tokenizer, err = TokenizerOf(dir, r); err != nil {
		return nil, c, err
	}
	if err := r.CheckTokenizer(m.Tokenizer); err != nil {
		return nil, c, fmt.Errorf("%s: %w", dir, err)
	}
	if err := m.open(log, parametersOf(c)); err != nil {
		return nil, c, err
	}
	return m, c, nil
}

// ArbitraryModel has meaningless weights, for measurements of speed.
func ArbitraryModel(r *recipes.Recipe, log *slog.Logger) (*Model, error) {
	m := &Model{Recipe: r, Checkpoint: &checkpoint.Checkpoint{}, Model: &r.Model}
	err := m.open(log, func(mem graph.Memory, p *graph.Plan) error {
		part := make([]float32, 1<<20)
		rng := rand.New(rand.NewPCG(r.Train.Seed, 1))
		for i := range part {
			part[i] = 0.02 * (2*rng.Float32() - 1)
		}
		for at := 0; at < p.Sizes[graph.Params]; at += len(part) {
			if err := mem.Write(graph.Params, at, part[:min(len(part), p.Sizes[graph.Params]-at)]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// open opens the recipe's device and memory, which write fills. After an error the device is
// closed.
func (m *Model) open(log *slog.Logger, write func(graph.Memory, *graph.Plan) error) (err error) {
	if m.Device, err = NewDevice(m.Recipe.Run, log); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			m.Device.Close()
		}
	}()
	m.Precision = m.Recipe.Precision()
	m.Precision.Mixed = mixedPlan(m.Device, m.Recipe.Run.Mixed())
	m.Memory, err = modelMemory(m.Device, m.Model, m.Precision, func(mem graph.Memory, plan *graph.Plan) error {
		m.Params = plan.Params
		return write(mem, plan)
	})
	return err
}

// parametersOf writes a checkpoint's parameters.
func parametersOf(c *checkpoint.Checkpoint) func(graph.Memory, *graph.Plan) error {
	return func(mem graph.Memory, plan *graph.Plan) error {
		list := hostTensors(plan.Params, "")
		if err := c.ReadModel(list); err != nil {
			return err
		}
		return writeTensors(mem, graph.Params, plan.Params, list)
	}
}

// modelMemory returns memory with a model's parameters, which write fills, and no moments.
func modelMemory(dev graph.Device, m *layers.Model, p layers.Precision, write func(graph.Memory, *graph.Plan) error) (graph.Memory, error) {
	// Any program of the model has the same parameter layout.
	plan, err := generate.Plan(m, 1, 1, 1, p)
	if err != nil {
		return nil, err
	}
	mem, err := dev.NewMemory(plan.Sizes)
	if err != nil {
		return nil, err
	}
	if err := write(mem, plan); err != nil || !p.Mixed {
		return mem, err
	}
	cast, err := loadCast(dev, mem, plan.Sizes[graph.Params])
	if err != nil {
		return nil, err
	}
	return mem, cast.Run()
}

// Logits returns the logits [T V] of each token's successor.
func (m *Model) Logits(tokens []int32) ([]float32, error) {
	return runLogits(m.Device, m.Memory, m.Model, 1, tokens, m.Precision)
}
