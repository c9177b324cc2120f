package train

import (
	"fmt"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// Inspection says what a recipe's model requires, without running it.
type Inspection struct {
	Name      string `json:"name"`
	Sublayers int    `json:"sublayers"`
	// Precision is run.dtype, and which sublayers are exempt from bfloat16.
	Precision  string     `json:"precision"`
	Parameters Parameters `json:"parameters"`
	// FLOPsPerToken is the work of the forward and backward pass: 6 per weight of a matrix product,
	// and 12 d per visible pair in an attention layer of width d.
	FLOPsPerToken float64 `json:"flops_per_token"`
	TokensPerStep int64   `json:"tokens_per_step"`
	Steps         int64   `json:"steps"`
	Memory        Bytes   `json:"memory_bytes"`
	// Recomputed is the number of kernel calls that the backward pass repeats to stay within the
	// memory budget, and RecomputedOps counts them by op.
	Recomputed    int            `json:"recomputed_calls"`
	RecomputedOps map[string]int `json:"recomputed_ops,omitempty"`
}

// Parameters counts trained parameters.
type Parameters struct {
	Total int64 `json:"total"`
	// NonEmbedding excludes the embedding and an untied head.
	NonEmbedding int64  `json:"non_embedding"`
	Parts        []Part `json:"parts"`
}

// Part is one kind of sublayer, or something outside the sublayers.
type Part struct {
	Name       string `json:"name"`
	Count      int    `json:"count"`
	Parameters int64  `json:"parameters"`
}

// Bytes is the memory of a step.
type Bytes struct {
	// Parameters includes mixed precision's copy of the weights.
	Parameters int64 `json:"parameters"`
	Gradients  int64 `json:"gradients"`
	Optimizer  int64 `json:"optimizer"`
	// Activations is the arena of one micro-batch.
	Activations int64 `json:"activations"`
	Total       int64 `json:"total"`
	// CheckpointCopy is the additional host memory that a run needs from its first checkpoint on:
	// the copy of parameters and moments that is written while training continues. Each of several
	// processes has a part of it.
	CheckpointCopy int64 `json:"checkpoint_copy"`
}

// Inspect compiles a recipe's model and counts. It allocates none of the memory that it counts.
func Inspect(r *recipes.Recipe) (*Inspection, error) {
	plan, err := TrainPlan(&r.Model, ConfigOf(r))
	if err != nil {
		return nil, err
	}
	return InspectPlan(r, plan)
}

// InspectPlan counts a recipe's model, given the plan of its pass over a micro-batch.
func InspectPlan(r *recipes.Recipe, plan *graph.Plan) (*Inspection, error) {
	t := r.Data.SeqLen
	stack, err := r.Model.Sublayers()
	if err != nil {
		return nil, err
	}
	in := &Inspection{
		Name: r.Name, Sublayers: len(stack), Precision: r.PrecisionText(), Parameters: count(plan.Params, stack),
		FLOPsPerToken: FLOPsPerToken(&r.Model, plan.Params, stack, t),
		TokensPerStep: int64(r.Train.BatchSize) * int64(t), Steps: r.Train.Steps,
	}
	m := &in.Memory
	m.Parameters = 4 * int64(plan.Sizes[graph.Params]+plan.Sizes[graph.Shadow])
	m.Gradients = 4 * int64(plan.Sizes[graph.Grads])
	m.Optimizer = 2 * m.Gradients
	in.RecomputedOps = plan.Repeated()
	for _, n := range in.RecomputedOps {
		in.Recomputed += n
	}
	m.Activations = 4 * int64(plan.Sizes[graph.Arena])
	m.Total = m.Parameters + m.Gradients + m.Optimizer + m.Activations
	m.CheckpointCopy = checkpointCopyBytes(in.Parameters.Total)
	return in, nil
}

func count(params []graph.ParamSlot, stack []layers.Sublayer) Parameters {
	c := Parameters{}
	index := map[string]int{}
	part := func(name string) *Part {
		i, ok := index[name]
		if !ok {
			i = len(c.Parts)
			index[name] = i
			c.Parts = append(c.Parts, Part{Name: name})
		}
		return &c.Parts[i]
	}
	part("embedding").Count = 1
	for _, s := range stack {
		part(s.Name).Count++
	}
	for _, p := range params {
		n := int64(p.Shape.Size())
		c.Total += n
		name := partOf(p.Name, stack)
		part(name).Parameters += n
		if name != "embedding" && name != "head" {
			c.NonEmbedding += n
		}
	}
	for _, name := range []string{"head", "final norm"} {
		if i, ok := index[name]; ok {
			c.Parts[i].Count = 1
		}
	}
	return c
}

func partOf(param string, stack []layers.Sublayer) string {
	var i int
	if _, err := fmt.Sscanf(param, "model.layers.%d.", &i); err == nil && i < len(stack) {
		return stack[i].Name
	}
	switch {
	case strings.HasPrefix(param, "model.embeddings."):
		return "embedding"
	case strings.HasPrefix(param, "lm_head."):
		return "head"
	}
	return "final norm"
}

// FLOPsPerToken returns the model's work per token, forward and backward, in rows of t tokens.
// Convolution, scan, norms and activation functions don't count, nor does an embedding that is only
// looked up.
func FLOPsPerToken(m *layers.Model, params []graph.ParamSlot, stack []layers.Sublayer, t int) float64 {
	flops := 0.0
	for _, p := range params {
		lookedUp := !m.TieEmbeddings && strings.HasPrefix(p.Name, "model.embeddings.")
		if len(p.Shape) == 2 && strings.HasSuffix(p.Name, ".weight") && !lookedUp {
			flops += 6 * float64(p.Shape.Size())
		}
	}
	// A pair of tokens costs 6 per channel of the query and 6 per channel of the value.
	for _, s := range stack {
		switch mixer := s.Mixer.(type) {
		case layers.Attention:
			w := t
			if mixer.Window > 0 {
				w = min(w, mixer.Window)
			}
			pairs := pairsUpTo(w) + float64(t-w)*float64(w)
			flops += 12 * float64(mixer.Heads*mixer.HeadDim) * pairs / float64(t)
		case layers.Mega:
			pairs := float64(t/mixer.Chunk)*pairsUpTo(mixer.Chunk) + pairsUpTo(t%mixer.Chunk)
			flops += 6 * float64(mixer.ZDim+m.DModel) * pairs / float64(t)
		}
	}
	return flops
}

// pairsUpTo returns the number of pairs of a token and a visible one among n tokens that see all
// before them.
func pairsUpTo(n int) float64 { return float64(n) * float64(n+1) / 2 }
