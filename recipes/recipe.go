// Package recipes reads the YAML files that describe runs: one file, one whole run. Each section
// decodes directly into the struct of the package that it configures. The recipes in this folder
// are also embedded in the binary.
package recipes

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
)

// Recipe is one whole run.
type Recipe struct {
	// Name is the name of the run; the default run directory ends in it.
	Name       string            `yaml:"name" json:"name"`
	Model      layers.Model      `yaml:"model" json:"model"`
	Data       data.Config       `yaml:"data" json:"data"`
	Optim      optim.AdamW       `yaml:"optim" json:"optim"`
	Train      Train             `yaml:"train" json:"train"`
	Eval       Eval              `yaml:"eval" json:"eval"`
	Checkpoint checkpoint.Config `yaml:"checkpoint" json:"checkpoint"`
	Sample     Sample            `yaml:"sample" json:"sample"`
	Run        Run               `yaml:"run" json:"run"`
}

// Train says how long to train, and on how many rows at a time.
type Train struct {
	// Steps is the number of optimizer steps; 0 derives it from Tokens.
	Steps int64 `yaml:"steps" json:"steps"`
	// Tokens is the budget: Steps = Tokens / (BatchSize * seq_len), rounded down.
	Tokens int64 `yaml:"tokens" json:"tokens"`
	// BatchSize is the number of rows per step, over all micro-batches.
	BatchSize int `yaml:"batch_size" json:"batch_size"`
	// MicroBatch is the number of rows per forward and backward pass, a divisor of BatchSize; 0
	// means BatchSize.
	MicroBatch int `yaml:"micro_batch" json:"micro_batch"`
	// Seed is the random seed of the parameters.
	Seed  uint64 `yaml:"seed" json:"seed"`
	Guard Guard  `yaml:"guard" json:"guard"`
	// From is a run whose newest good checkpoint provides the parameters instead, or the folder of
	// a checkpoint; if empty, they are drawn at random.
	From string `yaml:"from" json:"from"`
}

// Eval says how often, and on how much of the validation split, the loss is measured. It is always
// measured at the end.
type Eval struct {
	// Every is the number of steps between two measurements; 0 measures only at the end.
	Every int64 `yaml:"every" json:"every"`
	// Rows is the number of rows of the validation split that are read, spread evenly over it.
	Rows int `yaml:"rows" json:"rows"`
	// Lengths are the row lengths at which the loss is measured, in multiples of data.seq_len: 1,
	// and then increasing ones. All are measured on the first tokens of the same rows, which are as
	// long as the longest, as in the paper.
	Lengths []int `yaml:"lengths,flow" json:"lengths"`
}

// Sample is the text that is generated when a run ends. Tokens 0 generates none.
type Sample struct {
	Prompt      string  `yaml:"prompt" json:"prompt"`
	Tokens      int     `yaml:"tokens" json:"tokens"`
	Temperature float64 `yaml:"temperature" json:"temperature"`
	TopK        int     `yaml:"top_k" json:"top_k"`
	TopP        float64 `yaml:"top_p" json:"top_p"`
	Seed        uint64  `yaml:"seed" json:"seed"`
}

// Run says where the run is executed and what it shows.
type Run struct {
	// Out is the run directory; if empty, it is runs/ followed by the recipe's name.
	Out string `yaml:"out" json:"out"`
	// Device is cpu, cuda, or auto: a GPU if there is one.
	Device string `yaml:"device" json:"device"`
	// DType is the number format of computation: float32; bfloat16, which keeps weights, moments
	// and the residual stream in float32; or, on a GPU, tf32, which is float32 except that tensor
	// cores use only 10 bits of the mantissa of the operands of products with weights.
	DType string `yaml:"dtype" json:"dtype"`
	// Float32Sublayers is the number of sublayers at the start of the model that bfloat16 leaves in
	// float32, forward and backward. auto is the result of layers.Model.Float32Sublayers.
	Float32Sublayers Sublayers `yaml:"float32_sublayers" json:"float32_sublayers"`
	// MemoryBudget is the memory that a step may take: parameters, gradients, moments and
	// activations. If they would take more, activations are recomputed in the backward pass, which
	// changes no bits. auto is the free memory of the device; on the CPU less the copy that
	// checkpoints are written from.
	MemoryBudget Bytes `yaml:"memory_budget" json:"memory_budget"`
	// Shard says what is sharded over several processes: none; optimizer, the moments and the
	// update (ZeRO stage 1); or full, which includes parameters and gradients (ZeRO stage 3, as in
	// FSDP).
	Shard string `yaml:"shard" json:"shard"`
	// ReduceDType is the type in which gradients are summed over processes: float32, or, in mixed
	// precision between GPUs, bfloat16, which halves the traffic and rounds each sum.
	ReduceDType string `yaml:"reduce_dtype" json:"reduce_dtype"`
	// Timeout is how long a process may be silent before the others consider it lost and exit.
	Timeout Duration `yaml:"timeout" json:"timeout"`
	// TuneProducts makes a GPU time, for each large matrix product, those algorithms proposed by
	// cublasLt that give the same bits as the first one, and use the fastest. Otherwise the first
	// one is used.
	TuneProducts bool `yaml:"tune_products" json:"tune_products"`
	// Threads is the number of workers; 0 means one per core. Results don't depend on it.
	Threads int `yaml:"threads" json:"threads"`
	// LogEvery is the number of steps between two lines on a console that is not a terminal.
	LogEvery int64 `yaml:"log_every" json:"log_every"`
}

// Values of run.device and run.dtype.
const (
	CPU      = "cpu"
	CUDA     = "cuda"
	Auto     = "auto"
	Float32  = "float32"
	BFloat16 = "bfloat16"
	TF32     = "tf32"
)

// Values of run.shard.
const (
	ShardNone      = "none"
	ShardOptimizer = "optimizer"
	ShardFull      = "full"
)

// Devices and DTypes are the values that run.device and run.dtype may have.
var (
	Devices = []string{CPU, CUDA, Auto}
	DTypes  = []string{Float32, BFloat16, TF32}
	Shards  = []string{ShardNone, ShardOptimizer, ShardFull}
	// ReduceDTypes are the values that run.reduce_dtype may have.
	ReduceDTypes = []string{Float32, BFloat16}
)

// Mixed reports whether the run computes in mixed precision.
func (r Run) Mixed() bool { return r.DType == BFloat16 }

// Validate checks the section; an error names the wrong key.
func (r Run) Validate() error {
	switch {
	case !slices.Contains(Devices, r.Device):
		return fmt.Errorf("run.device: must be one of %s, is %q", strings.Join(Devices, ", "), r.Device)
	case !slices.Contains(DTypes, r.DType):
		return fmt.Errorf("run.dtype: must be one of %s, is %q", strings.Join(DTypes, ", "), r.DType)
	case r.DType == TF32 && r.Device == CPU:
		return errors.New("run.dtype: tf32 needs a GPU; use float32 on the CPU")
	case !slices.Contains(ReduceDTypes, r.ReduceDType):
		return fmt.Errorf("run.reduce_dtype: must be one of %s, is %q", strings.Join(ReduceDTypes, ", "), r.ReduceDType)
	case r.ReduceDType == BFloat16 && !r.Mixed():
		return fmt.Errorf("run.reduce_dtype: %s is for runs whose run.dtype is %s too, not %s", BFloat16, BFloat16, r.DType)
	case r.ReduceDType == BFloat16 && r.Device == CPU:
		return fmt.Errorf("run.reduce_dtype: %s is for GPUs, and run.device is %s", BFloat16, CPU)
	case !slices.Contains(Shards, r.Shard):
		return fmt.Errorf("run.shard: must be one of %s, is %q", strings.Join(Shards, ", "), r.Shard)
	case time.Duration(r.Timeout) < minTimeout || time.Duration(r.Timeout) > maxTimeout:
		return fmt.Errorf("run.timeout: must be between %v and %v, is %v", Duration(minTimeout), Duration(maxTimeout), r.Timeout)
	case r.Threads < 0 || r.Threads > maxThreads:
		return fmt.Errorf("run.threads: must be 1 to %d, or 0 for one per core, is %d", maxThreads, r.Threads)
	case r.LogEvery < 1:
		return fmt.Errorf("run.log_every: must be at least 1, is %d", r.LogEvery)
	}
	return nil
}

// Defaults returns a recipe before its file is read.
func Defaults() Recipe {
	return Recipe{
		Model:      layers.Defaults(),
		Data:       data.DefaultConfig(),
		Optim:      optim.DefaultAdamW(),
		Train:      Train{BatchSize: 512, Seed: 3407, Guard: DefaultGuard()},
		Eval:       Eval{Every: 1000, Rows: 200, Lengths: []int{1}},
		Checkpoint: checkpoint.DefaultConfig(),
		Sample:     Sample{Tokens: 0, Temperature: 0.8, TopP: 1, Seed: 1},
		Run:        Run{Device: CPU, DType: Float32, Float32Sublayers: AutoSublayers, Shard: ShardNone, ReduceDType: Float32, Timeout: Duration(2 * time.Minute), TuneProducts: true, LogEvery: 10},
	}
}

// Validate checks every section and the dependencies between them, and fills in what is derived
// from other keys. Errors name the key.
func (r *Recipe) Validate() error {
	switch {
	case r.Name == "":
		return fmt.Errorf("name: is empty: name the run")
	case r.Name == "." || r.Name == ".." || strings.ContainsFunc(r.Name, func(c rune) bool { return c == '/' || c == '\\' || !unicode.IsPrint(c) }):
		return fmt.Errorf("name: %q can't be the name of a folder", r.Name)
	}
	for _, check := range []func() error{
		r.Model.Validate, r.Data.Validate, r.Optim.Validate, r.train, r.Checkpoint.Validate, r.rest,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// The largest values. They keep sizes from overflowing.
const (
	maxBatch   = 1 << 20 // rows per step
	maxThreads = 1 << 12
	maxSample  = 1 << 20 // tokens per sample, for which full attention needs memory
	maxLengths = 1 << 10 // in multiples of seq_len, for a validation

	minTimeout = time.Second // several heartbeat intervals
	maxTimeout = 24 * time.Hour
)

func (r *Recipe) train() error {
	t := &r.Train
	switch {
	case t.BatchSize < 1 || t.BatchSize > maxBatch:
		return fmt.Errorf("train.batch_size: must be 1 to %d, is %d", maxBatch, t.BatchSize)
	case t.MicroBatch < 0:
		return fmt.Errorf("train.micro_batch: must be at least 1, or 0 for the whole batch, is %d", t.MicroBatch)
	case t.Steps < 0:
		return fmt.Errorf("train.steps: must be at least 1, or 0 to derive it from train.tokens, is %d", t.Steps)
	case t.Tokens < 0:
		return fmt.Errorf("train.tokens: must not be negative, is %d", t.Tokens)
	}
	if t.MicroBatch == 0 {
		t.MicroBatch = t.BatchSize
	}
	if t.BatchSize%t.MicroBatch != 0 {
		return fmt.Errorf("train.micro_batch: %d does not divide train.batch_size %d", t.MicroBatch, t.BatchSize)
	}
	perStep := int64(t.BatchSize) * int64(r.Data.SeqLen)
	switch {
	case t.Steps == 0 && t.Tokens == 0:
		return fmt.Errorf("train.steps: say how long to train, with train.steps or train.tokens")
	case t.Steps == 0:
		if t.Steps = t.Tokens / perStep; t.Steps == 0 {
			return fmt.Errorf("train.tokens: %d is less than one step of %d tokens", t.Tokens, perStep)
		}
	case t.Steps > math.MaxInt64/perStep:
		return fmt.Errorf("train.steps: %d steps of %d tokens are more tokens than can be counted", t.Steps, perStep)
	case t.Tokens != 0 && t.Tokens/perStep != t.Steps:
		return fmt.Errorf("train.tokens: %d tokens are %d steps of %d, but train.steps is %d; give one of them", t.Tokens, t.Tokens/perStep, perStep, t.Steps)
	}
	return t.Guard.Validate()
}

func risingFromOne(list []int) bool {
	for i, x := range list {
		if i == 0 && x != 1 || i > 0 && x <= list[i-1] || x > maxLengths {
			return false
		}
	}
	return len(list) > 0
}

func (r *Recipe) rest() error {
	switch {
	case r.Eval.Every < 0:
		return fmt.Errorf("eval.every: must be at least 1, or 0 for the end only, is %d", r.Eval.Every)
	case r.Eval.Rows < 1:
		return fmt.Errorf("eval.rows: must be at least 1, is %d", r.Eval.Rows)
	case r.Data.Generate.Task != "" && len(r.Eval.Lengths) > 1:
		return fmt.Errorf("eval.lengths: rows of data.generate end in their answer, so their first tokens can't be measured alone; use [1], not %v", r.Eval.Lengths)
	case !risingFromOne(r.Eval.Lengths):
		return fmt.Errorf("eval.lengths: must be rising multiples of data.seq_len from 1 to %d, such as [1, 2, 4], is %v", maxLengths, r.Eval.Lengths)
	case r.Sample.Tokens < 0 || r.Sample.Tokens > maxSample:
		return fmt.Errorf("sample.tokens: must be 0 to %d, is %d", maxSample, r.Sample.Tokens)
	case !(r.Sample.Temperature >= 0):
		return fmt.Errorf("sample.temperature: must not be negative, is %v", r.Sample.Temperature)
	case r.Sample.TopK < 0:
		return fmt.Errorf("sample.top_k: must be at least 1, or 0 for all, is %d", r.Sample.TopK)
	case !(r.Sample.TopP > 0 && r.Sample.TopP <= 1):
		return fmt.Errorf("sample.top_p: must be above 0 and at most 1, is %v", r.Sample.TopP)
	}
	if err := r.Run.Validate(); err != nil {
		return err
	}
	switch n, depth := r.Run.Float32Sublayers, r.Model.Depth(); {
	case int(n) > depth:
		return fmt.Errorf("run.float32_sublayers: must be auto, or 0 to the model's %d sublayers, is %d", depth, n)
	case n == AutoSublayers && r.Run.Mixed():
		// A run keeps its number, even if the meaning of auto changes later.
		r.Run.Float32Sublayers = Sublayers(r.Model.Float32Sublayers())
	}
	if r.Run.Out == "" {
		r.Run.Out = "runs/" + r.Name
	}
	return nil
}

// YAML writes the recipe with every key, defaults included.
func (r *Recipe) YAML() ([]byte, error) {
	return yaml.MarshalWithOptions(r, yaml.CustomMarshaler[string](quoted))
}

// plainText is text that YAML can't mistake for anything else.
var plainText = regexp.MustCompile(`^[A-Za-z_/$][A-Za-z0-9_/.$-]*$`)

// quoted returns s as YAML. The library's own choice of quotes loses tabs, and some text that
// starts with a bracket.
func quoted(s string) ([]byte, error) {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n", "inf", "nan":
		return []byte(strconv.Quote(s)), nil
	}
	if plainText.MatchString(s) {
		return []byte(s), nil
	}
	return []byte(strconv.Quote(s)), nil
}
