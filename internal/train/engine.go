// Package train contains the training loop: a model's programs on a device, the run directory
// around them, and everything between two steps.
package train

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/cast_weights"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// The errors of Step for bad arguments.
const (
	noMicroBatch   = "train: %d rows of %d tokens do not divide into micro-batches of %d"
	noAccumulation = "train: a step of %d micro-batches wants an engine made with Accumulate"
	wantedTargets  = "train: %d tokens and %d targets for rows of %d"
)

// Engine is one model on one device: its parameters and moments, and the programs that train and
// evaluate it. Its programs process rows of T tokens, MicroBatch rows at a time.
type Engine struct {
	MicroBatch, SeqLen int

	accumulate bool

	dev    graph.Device
	mem    graph.Memory
	model  *layers.Model
	optim  *optim.Optimizer
	train  graph.Program // for a step's last micro-batch
	more   graph.Program // for the micro-batches before it
	cast   graph.Program // rounds weights to bfloat16, in mixed precision
	loss   [1]float32
	count  [2]int32                  // written by weigh
	judge  func(loss float64) string // returns why an update should be skipped; nil: never
	params []graph.ParamSlot
	floats int // the length of Params and Grads

	config EngineConfig
	starts []int32 // of the documents in a micro-batch; nil if they are not kept apart

	comm     graph.Comm
	shard    optim.Shard
	exchange graph.Program // sums a few numbers over the processes
	sent     []float32     // its input and result
}

// EngineConfig describes the use of an engine.
type EngineConfig struct {
	// MicroBatch is the number of rows, and SeqLen the number of tokens per row, of one pass.
	MicroBatch, SeqLen int
	// Accumulate: a step has several micro-batches, whose gradients are summed.
	Accumulate bool
	// Unequal: rows may have different numbers of targets. The micro-batches and processes of a
	// step are then weighted by their targets, so that the result doesn't depend on how a batch is
	// divided.
	Unequal bool
	// Precision is the precision of the programs. NewEngine sets Mixed to its value on the device.
	layers.Precision
	// MemoryBudget is the number of bytes that parameters, gradients, moments and activations may
	// take together. If they would take more, the backward pass recomputes activations, which
	// changes no bits. 0 means the free memory of the device.
	MemoryBudget int64
	// Comm connects the processes of a data-parallel run, each with its own rows; nil means a run
	// of one process.
	Comm graph.Comm
	// Shard says what is sharded over the processes, as in recipes.Run; empty means nothing.
	Shard string
	// ReduceBFloat16 sums gradients over processes in bfloat16. Only GPUs can.
	ReduceBFloat16 bool

	// ResetState keeps the documents of a row apart: no token sees another document. Each document
	// ends with the token EOS.
	ResetState bool
	EOS        int32

	bucket int   // elements; 0 means bucketElements
	free   int64 // bytes of the device's memory; 0 means what it reports
	// copyOnDevice: the memory that MemoryBudget refers to also holds the copy that checkpoints are
	// written from.
	copyOnDevice bool
}

// ConfigOf returns the configuration for a recipe's training.
func ConfigOf(r *recipes.Recipe) EngineConfig {
	return EngineConfig{MicroBatch: r.Train.MicroBatch, SeqLen: r.Data.SeqLen, Accumulate: r.Train.MicroBatch < r.Train.BatchSize,
		Precision: r.Precision(), MemoryBudget: int64(r.Run.MemoryBudget), ResetState: r.Data.ResetState,
		Unequal: r.Data.Generate.Task != ""}
}

// NewEngine compiles the programs of m and allocates all memory that training needs.
func NewEngine(dev graph.Device, m *layers.Model, o optim.AdamW, c EngineConfig) (*Engine, error) {
	c.Mixed = mixedPlan(dev, c.Mixed)
	if c.ReduceBFloat16 && !c.Mixed {
		return nil, fmt.Errorf("run.reduce_dtype: %s is for mixed precision on GPUs, and this is %s", recipes.BFloat16, dev.Name())
	}
	if c.MemoryBudget == 0 {
		var err error
		if c.free == 0 {
			c.free, err = dev.FreeMemory()
		}
		if err != nil {
			return nil, err
		}
		c.MemoryBudget = int64(usable * float64(c.free))
		_, c.copyOnDevice = dev.(*cpu.Device)
	}
	plan, err := TrainPlan(m, c)
	if err != nil {
		return nil, err
	}
	e := &Engine{config: c, comm: c.Comm, MicroBatch: c.MicroBatch, SeqLen: c.SeqLen, accumulate: c.Accumulate, dev: dev, model: m, params: plan.Params,
		floats: plan.Sizes[graph.Params]}
	if _, used := plan.Inputs[inputStarts]; used {
		e.starts = make([]int32, c.MicroBatch*c.SeqLen)
	}
	if c.Comm != nil {
		if err := e.join(c, plan); err != nil {
			return nil, err
		}
	}
	sizes, own := plan.Sizes, e.shard.Parameters(e.floats)
	sizes[graph.Params], sizes[graph.Grads], sizes[graph.Shadow] = own, own, own/2
	if !c.Mixed {
		sizes[graph.Shadow] = 0
	}
	moments := e.shard.Moments(e.floats)
	sizes[graph.ExpAvg], sizes[graph.ExpAvgSq] = moments, moments
	if e.mem, err = dev.NewMemory(sizes); err != nil {
		return nil, err
	}
	if e.train, err = dev.Load(plan, e.mem); err != nil {
		return nil, err
	}
	if e.more, err = e.loadMore(c); err != nil {
		return nil, err
	}
	if e.optim, err = optim.New(dev, e.mem, e.params, e.floats, o, c.Mixed, e.shard); err != nil {
		return nil, err
	}
	if c.Mixed {
		if e.cast, err = loadCast(dev, e.mem, own); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// loadCast loads the program that rounds all of Params to Shadow.
func loadCast(dev graph.Device, mem graph.Memory, n int) (graph.Program, error) {
	g := layers.NewBuilder(layers.Precision{})
	cast_weights.Apply(g, g.Whole(graph.Shadow, n/2), g.Whole(graph.Params, n))
	plan, err := g.Compile()
	if err != nil {
		return nil, err
	}
	return dev.Load(plan, mem)
}

// WeightsWritten must be called after any write to the parameters from outside: mixed precision has
// a copy of them.
func (e *Engine) WeightsWritten() error {
	if e.cast == nil {
		return nil
	}
	return e.cast.Run()
}

// Init draws all parameters, several at a time. A parameter's values depend only on the seed, its
// name and its shape.
func (e *Engine) Init(seed uint64) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range e.params {
		g.Go(func() error {
			w := make([]float32, p.Shape.Size())
			h := fnv.New64a()
			h.Write([]byte(p.Name))
			p.Init(rand.New(rand.NewPCG(seed, h.Sum64())), w)
			return e.write(graph.Params, p.Offset, w)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return e.WeightsWritten()
}

// Step does one optimizer step on tokens and targets, each rows x T, and returns the mean loss in
// nats and the norm of the gradient before clipping. step counts from 0. It does not allocate.
func (e *Engine) Step(step, total int64, tokens, targets []int32) (loss, norm float64, err error) {
	n := e.MicroBatch * e.SeqLen
	if len(tokens) != len(targets) || len(tokens) == 0 {
		return 0, 0, fmt.Errorf(wantedTargets, len(tokens), len(targets), e.SeqLen)
	}
	if len(tokens)%n != 0 {
		return 0, 0, fmt.Errorf(noMicroBatch, len(tokens)/e.SeqLen, e.SeqLen, e.MicroBatch)
	}
	micro := len(tokens) / n
	if micro > 1 && !e.accumulate {
		return 0, 0, fmt.Errorf(noAccumulation, micro)
	}
	if err := e.weigh(micro, targets); err != nil {
		return 0, 0, err
	}
	if err := e.clearGradients(); err != nil {
		return 0, 0, err
	}
	for i := range micro {
		program := e.more
		if i == micro-1 {
			program = e.train
		}
		if err := e.run(program, e.SeqLen, tokens[i*n:(i+1)*n], targets[i*n:(i+1)*n]); err != nil {
			return 0, 0, err
		}
		loss += float64(e.loss[0]) / float64(micro)
	}
	if loss, err = e.Mean(loss); err != nil {
		return 0, 0, err
	}
	if e.judge != nil && e.judge(loss) != "" {
		return loss, math.NaN(), errSkipped
	}
	norm, err = e.optim.Step(step, total, micro*e.Processes())
	return loss, norm, err
}

// weigh tells the programs of a step the total number of targets in its passes, over all processes,
// if passes may differ in this.
func (e *Engine) weigh(micro int, targets []int32) error {
	if !e.config.weighs() {
		return nil
	}
	all, err := e.Sum(float64(counted(targets)))
	if err != nil {
		return err
	}
	if all > math.MaxInt32 {
		return fmt.Errorf("train.batch_size: a step of %.0f targets is too large, there may be %d", all, math.MaxInt32)
	}
	e.count = [2]int32{int32(all), int32(micro * e.Processes())}
	if err := e.more.WriteInts(inputCount, e.count[:]); err != nil || e.more == e.train {
		return err
	}
	return e.train.WriteInts(inputCount, e.count[:])
}

// clearGradients zeroes gradients that will be accumulated.
func (e *Engine) clearGradients() error {
	if !e.accumulate {
		return nil
	}
	return e.mem.Clear(graph.Grads)
}

// run runs one program on one micro-batch of rows of t tokens and reads its loss.
func (e *Engine) run(p graph.Program, t int, tokens, targets []int32) error {
	if err := p.WriteInts(inputTokens, tokens); err != nil {
		return err
	}
	if err := p.WriteInts(inputTargets, targets); err != nil {
		return err
	}
	if err := e.writeStarts(p, t, tokens); err != nil {
		return err
	}
	if err := p.Run(); err != nil {
		return err
	}
	return p.Read(resultLoss, e.loss[:])
}

// writeStarts writes where documents start in rows of t tokens, if that is needed.
func (e *Engine) writeStarts(p graph.Program, t int, tokens []int32) error {
	if e.starts == nil {
		return nil
	}
	if len(e.starts) < len(tokens) {
		e.starts = make([]int32, len(tokens))
	}
	starts := e.starts[:len(tokens)]
	for i := range starts {
		switch {
		case i%t == 0:
			starts[i] = 0
		case tokens[i-1] == e.config.EOS:
			starts[i] = int32(i % t)
		default:
			starts[i] = starts[i-1]
		}
	}
	return p.WriteInts(inputStarts, starts)
}

// Logits returns the logits [B T V] of one micro-batch. Parameters must not be sharded.
func (e *Engine) Logits(tokens []int32) ([]float32, error) {
	return runLogits(e.dev, e.mem, e.model, e.MicroBatch, tokens, e.config.Precision)
}

// runLogits computes the logits of b rows of tokens once.
func runLogits(dev graph.Device, mem graph.Memory, m *layers.Model, b int, tokens []int32, precision layers.Precision) ([]float32, error) {
	plan, err := logitsPlan(m, b, len(tokens)/b, precision)
	if err != nil {
		return nil, err
	}
	p, err := dev.Load(plan, mem)
	if err != nil {
		return nil, err
	}
	if err := p.WriteInts(inputTokens, tokens); err != nil {
		return nil, err
	}
	if err := p.Run(); err != nil {
		return nil, err
	}
	out := make([]float32, len(tokens)*m.VocabSize)
	return out, p.Read(resultLogits, out)
}

// Forward does the forward and backward pass of one micro-batch, without an optimizer step, and
// returns the loss. The gradients are in region Grads.
func (e *Engine) Forward(tokens, targets []int32) (float64, error) {
	if err := e.weigh(1, targets); err != nil {
		return 0, err
	}
	if err := e.clearGradients(); err != nil {
		return 0, err
	}
	err := e.run(e.train, e.SeqLen, tokens, targets)
	return float64(e.loss[0]), err
}

// Device, Memory and Model are what other programs on the same parameters need.
func (e *Engine) Device() graph.Device { return e.dev }

// Memory holds the parameters, or this process's pieces of them.
func (e *Engine) Memory() graph.Memory { return e.mem }

// Model returns the model that the engine trains.
func (e *Engine) Model() *layers.Model { return e.model }

// Plans returns a step's plans: of its last micro-batch, of those before it, and of the update.
func (e *Engine) Plans() (last, more, update *graph.Plan) {
	return e.train.Plan(), e.more.Plan(), e.optim.Plan()
}

// Precision returns the precision of the engine's programs: Mixed if they keep tensors in bfloat16.
func (e *Engine) Precision() layers.Precision { return e.config.Precision }

// Params returns the names and positions of the parameters.
func (e *Engine) Params() []graph.ParamSlot { return e.params }

// CountSkipped tells AdamW's bias correction how many updates have been skipped so far.
func (e *Engine) CountSkipped(n int64) { e.optim.Skipped = n }
