package train

import (
	"github.com/sambatrain/sambatrain/graph"
)

// Evaluator measures losses with an engine's current parameters. Its rows may have another length
// than those of training.
type Evaluator struct {
	Rows, SeqLen int

	engine  *Engine
	program graph.Program
	nll     []float32
}

// NewEvaluator compiles the forward pass over b rows of t tokens.
func (e *Engine) NewEvaluator(b, t int) (*Evaluator, error) {
	plan, err := evalPlan(e.model, e.config, e.train.Plan(), b, t)
	if err != nil {
		return nil, err
	}
	p, err := e.dev.Load(plan, e.mem)
	if err != nil {
		return nil, err
	}
	return &Evaluator{Rows: b, SeqLen: t, engine: e, program: p, nll: make([]float32, b*t)}, nil
}

// Run returns each token's cross-entropy in nats, Rows x SeqLen. The slice is valid until the next
// call.
func (v *Evaluator) Run(tokens, targets []int32) ([]float32, error) {
	if err := v.engine.run(v.program, v.SeqLen, tokens, targets); err != nil {
		return nil, err
	}
	return v.nll, v.program.Read(resultNLL, v.nll)
}
