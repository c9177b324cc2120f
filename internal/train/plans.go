package train

import (
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// Names of the programs' inputs and results.
const (
	inputTokens  = "tokens"
	inputTargets = "targets"
	inputCount   = "count"  // the number of targets and of passes of a step, see EngineConfig.Unequal
	inputStarts  = "starts" // of documents, see EngineConfig.ResetState
	resultLoss   = "loss"
	resultNLL    = "nll"
	resultLogits = "logits"
)

// TrainPlan is the forward and backward pass over a step's last or only micro-batch.
func TrainPlan(m *layers.Model, c EngineConfig) (*graph.Plan, error) {
	return trainPlan(m, c, true)
}

// trainPlan sums the gradients over the processes of a run if it is the last one of a step.
func trainPlan(m *layers.Model, c EngineConfig, last bool) (*graph.Plan, error) {
	g := layers.NewBuilder(c.Precision)
	tokens, targets := g.Input(inputTokens, graph.Int32, c.MicroBatch, c.SeqLen), g.Input(inputTargets, graph.Int32, c.MicroBatch, c.SeqLen)
	c.documents(g, c.MicroBatch, c.SeqLen)
	loss := c.loss(m, g, tokens, targets)
	g.Result(resultLoss, loss)
	g.Result(resultNLL, loss.Output(1))
	if c.Accumulate {
		g.SetAccumulate()
	}
	c.shard(g, nil)
	if err := g.Gradients(loss); err != nil {
		return nil, err
	}
	if c.Comm != nil && last && c.Shard != recipes.ShardFull {
		g.SetReduction(optim.Reduction(c.buckets(g.ParamsLength()), c.Shard == recipes.ShardOptimizer, c.ReduceBFloat16))
	}
	if err := limitArena(g, c); err != nil {
		return nil, err
	}
	plan, err := g.Compile()
	return plan, explainLimit(err, c)
}

// loss returns what is differentiated: the mean over the targets of a pass, or its part of a
// step's.
func (c EngineConfig) loss(m *layers.Model, g *graph.Builder, tokens, targets graph.Tensor) graph.Tensor {
	if !c.weighs() {
		return m.Loss(g, tokens, targets)
	}
	return m.PartLoss(g, tokens, targets, g.Input(inputCount, graph.Int32, 2))
}

// weighs reports whether a step has several passes that may have unequal numbers of targets.
func (c EngineConfig) weighs() bool { return c.Unequal && (c.Accumulate || c.processes() > 1) }

// documents declares where documents start, if they are to be kept apart.
func (c EngineConfig) documents(g *graph.Builder, b, t int) {
	if c.ResetState {
		g.SetDocuments(g.Input(inputStarts, graph.Int32, b, t))
	}
}

// evalPlan is the forward pass over b rows of t tokens, in c's form. Sharded parameters have the
// layout of the training's plan.
func evalPlan(m *layers.Model, c EngineConfig, train *graph.Plan, b, t int) (*graph.Plan, error) {
	g := layers.NewBuilder(c.Precision)
	c.shard(g, train)
	tokens, targets := g.Input(inputTokens, graph.Int32, b, t), g.Input(inputTargets, graph.Int32, b, t)
	c.documents(g, b, t)
	loss := m.EvalLoss(g, tokens, targets)
	g.Result(resultLoss, loss)
	g.Result(resultNLL, loss.Output(1))
	return g.Compile()
}

func logitsPlan(m *layers.Model, b, t int, p layers.Precision) (*graph.Plan, error) {
	g := layers.NewBuilder(p)
	g.Result(resultLogits, m.Logits(g, g.Input(inputTokens, graph.Int32, b, t)))
	return g.Compile()
}
