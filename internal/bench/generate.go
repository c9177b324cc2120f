package bench

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sambatrain/sambatrain/graph/cpu/peak"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// GenerateOptions say what to measure of a model that generates text.
type GenerateOptions struct {
	// Prompts are the lengths of the prompts. Each measurement has Tokens tokens in total: its
	// number of rows is Tokens divided by the length.
	Prompts []int
	Tokens  int
	// CallTokens is the maximum number of tokens, over all rows, in one call.
	CallTokens int
	// Positions, increasing from 0, are where decoding is timed, in Rows texts, for Steps tokens
	// each.
	Positions   []int
	Rows, Steps int
	// Runs is the number of timed runs of a prompt, after one warm-up run.
	Runs int
	// TFLOPs and GBs are the machine's limits for matrix products and for memory. 0 means that a
	// CPU's are measured and the data sheet of a known GPU is used.
	TFLOPs, GBs float64
	// Ops adds tables of ops, with each call timed.
	Ops bool
	Log *slog.Logger

	between func() // called between what is timed
}

// Generation is the speed of a model that generates text.
type Generation struct {
	Device    string  `json:"device"`
	Name      string  `json:"name"`
	Precision string  `json:"precision"` // run.dtype
	TFLOPs    float64 `json:"limit_tflops,omitempty"`
	GBs       float64 `json:"limit_gb_per_s,omitempty"`
	// Limits says where the limits come from.
	Limits  string        `json:"limits"`
	Prompts []PromptSpeed `json:"prompts"`
	Decode  []DecodeSpeed `json:"decode"`
	// PromptOps are the ops of the longest prompts, DecodeOps those of a token at the last
	// position.
	PromptOps []Op `json:"prompt_ops,omitempty"`
	DecodeOps []Op `json:"decode_ops,omitempty"`
}

// PromptSpeed is the speed of processing prompts of one length.
type PromptSpeed struct {
	Length          int     `json:"length"`
	Rows            int     `json:"rows"`
	Seconds         float64 `json:"seconds"` // the median of all runs
	MinSeconds      float64 `json:"min_seconds"`
	MaxSeconds      float64 `json:"max_seconds"`
	TokensPerSecond float64 `json:"tokens_per_second"`
	// Share is the model's operations relative to the limit; Generation.Above says how it can exceed 1.
	Share float64 `json:"share_of_limit,omitempty"`
}

// DecodeSpeed is the speed of decoding from a position on.
type DecodeSpeed struct {
	Position int     `json:"position"`
	Rows     int     `json:"rows"`
	StepMS   float64 `json:"step_ms"` // the mean
	// TokensPerSecond is for all rows at this position. Until is the mean from the start to here,
	// the speed of generating that many tokens.
	TokensPerSecond float64 `json:"tokens_per_second"`
	Until           float64 `json:"tokens_per_second_until"`
	StateBytes      int64   `json:"state_bytes"`
	// Share is the bytes of weights and states that a step must read, relative to the limit;
	// Generation.Above says how it can exceed 1.
	Share float64 `json:"share_of_limit,omitempty"`
}

// gpus are the limits of GPUs, by a part of their names: dense bfloat16 products and memory, from
// NVIDIA's data sheets for the SXM versions.
var gpus = []struct {
	name        string
	tflops, gbs float64
}{{"H200", 989.4, 4800}, {"H100", 989.4, 3350}, {"A100", 312, 2039}}

// Generate measures a recipe's model with arbitrary weights.
func Generate(r *recipes.Recipe, o GenerateOptions) (*Generation, error) {
	m, err := train.ArbitraryModel(r, o.Log)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	res := &Generation{Device: m.Device.Name(), Name: r.Name, Precision: r.PrecisionText()}
	o.between = func() {}
	var meter *peak.Meter
	if o.TFLOPs == 0 || o.GBs == 0 {
		if meter = newMeter(m.Device); meter != nil {
			o.between = meter.Turn
		}
	}
	rec := &recorder{Device: m.Device}
	m.Device = rec
	w, err := weigh(m)
	if err != nil {
		return nil, err
	}
	for _, n := range o.Prompts {
		p, ops, err := promptSpeed(rec, m, o, n)
		if err != nil {
			return nil, fmt.Errorf("prompts of %d tokens: %w", n, err)
		}
		o.Log.Info("prompts", "length", n, "rows", p.Rows, "tokens/s", int(p.TokensPerSecond))
		res.Prompts, res.PromptOps = append(res.Prompts, p), ops
	}
	if len(o.Positions) > 0 {
		if res.Decode, res.DecodeOps, err = decodeSpeeds(rec, m, o); err != nil {
			return nil, fmt.Errorf("decoding: %w", err)
		}
	}
	o.between()
	res.limits(o, meter)
	res.share(w)
	return res, nil
}

// limits sets the limits that are given; the others are measured, or looked up.
func (g *Generation) limits(o GenerateOptions, meter *peak.Meter) {
	g.TFLOPs, g.GBs, g.Limits = o.TFLOPs, o.GBs, "given"
	if g.TFLOPs > 0 && g.GBs > 0 {
		return
	}
	tflops, gbs, source := limitsOf(g.Device, meter)
	g.TFLOPs, g.GBs, g.Limits = cmp.Or(g.TFLOPs, tflops), cmp.Or(g.GBs, gbs), source
	switch {
	case o.TFLOPs > 0:
		g.Limits += tflopsGiven
	case o.GBs > 0:
		g.Limits += gbsGiven
	}
}

// Where limits come from, if only one of them is given.
const (
	measured    = "measured"
	tflopsGiven = ", TFLOP/s given"
	gbsGiven    = ", GB/s given"
)

// limitsOf returns the limits of a device, 0 if they are unknown, and where they come from. meter has
// measured those of a CPU, and is nil otherwise.
func limitsOf(device string, meter *peak.Meter) (tflops, gbs float64, source string) {
	if meter != nil {
		p := meter.Peak()
		return p.GFLOPs / 1e3, p.Bandwidth(), measured
	}
	for _, gpu := range gpus {
		if strings.Contains(device, gpu.name) {
			return gpu.tflops, gpu.gbs, "data sheet of the " + gpu.name + " SXM"
		}
	}
	return 0, 0, "unknown"
}

// share compares the measurements with the limits, where these are known.
func (g *Generation) share(w weights) {
	for i := range g.Prompts {
		if p := &g.Prompts[i]; g.TFLOPs > 0 {
			p.Share = w.prompt(p.Length, p.Rows) / p.Seconds / (g.TFLOPs * 1e12)
		}
	}
	for i := range g.Decode {
		if d := &g.Decode[i]; g.GBs > 0 {
			d.Share = (w.bytes + float64(d.StateBytes)) / (d.StepMS / 1e3) / (g.GBs * 1e9)
		}
	}
}

// weights holds what a model's work and memory consist of.
type weights struct {
	model *train.Model
	stack []layers.Sublayer
	last  float64 // parameters that are needed only for the last token of a prompt
	bytes float64 // bytes of the weights that a decode step reads
}

func weigh(m *train.Model) (weights, error) {
	stack, err := m.Model.Sublayers()
	if err != nil {
		return weights{}, err
	}
	w := weights{model: m, stack: stack, last: float64(m.Model.VocabSize * m.Model.DModel)}
	for i := layers.LastMixing(stack) + 1; i < len(stack); i++ {
		for _, p := range m.Params {
			if strings.HasPrefix(p.Name, fmt.Sprintf("model.layers.%d.mixer.", i)) {
				w.last += float64(p.Shape.Size())
			}
		}
	}
	for _, p := range m.Params {
		size := 4.0
		if m.Precision.Rounds(p.Name) {
			size = 2
		}
		if m.Model.TieEmbeddings || !strings.HasPrefix(p.Name, "model.embeddings.") {
			w.bytes += size * float64(p.Shape.Size())
		}
	}
	return w, nil
}

// prompt returns the number of operations for `rows` prompts of n tokens.
func (w weights) prompt(n, rows int) float64 {
	token := train.FLOPsPerToken(w.model.Model, w.model.Params, w.stack, n) / 3 // forward only
	return float64(rows) * (float64(n)*token - 2*float64(n-1)*w.last)
}

// callChunk returns the number of tokens per row in one call.
func callChunk(o GenerateOptions, rows, length int) int {
	return max(1, min(length, o.CallTokens/rows))
}

func randomTokens(n, vocab int) []int32 {
	rng := rand.New(rand.NewPCG(1, 1))
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(rng.IntN(vocab))
	}
	return list
}

// newEngine makes an engine for rows of up to `length` tokens, if there is memory for their states.
func newEngine(m *train.Model, rows, chunk, length int) (*generate.Engine, error) {
	debug.FreeOSMemory() // of the engine before
	if err := generate.CheckRoom(m.Device, m.Model, generate.Config{Rows: rows, Positions: length, Precision: m.Precision}); err != nil {
		return nil, fmt.Errorf("%d texts of %d tokens: %w", rows, length, err)
	}
	return generate.New(m.Device, m.Memory, m.Model, generate.Config{Rows: rows, Chunk: chunk, Room: length, Precision: m.Precision})
}

func promptSpeed(rec *recorder, m *train.Model, o GenerateOptions, n int) (p PromptSpeed, ops []Op, err error) {
	p = PromptSpeed{Length: n, Rows: max(1, o.Tokens/n)}
	e, err := newEngine(m, p.Rows, callChunk(o, p.Rows, n), n)
	if err != nil {
		return p, nil, err
	}
	defer e.Close()
	tokens := randomTokens(p.Rows*n, m.Model.VocabSize)
	next := func() error {
		if err := e.Reset(); err != nil {
			return err
		}
		_, err := e.Next(tokens) // reads the logits, so the device is done
		return err
	}
	var took []float64
	for i := range o.Runs + 1 {
		o.between()
		started := time.Now()
		if err := next(); err != nil {
			return p, nil, err
		}
		if i > 0 {
			took = append(took, time.Since(started).Seconds())
		}
	}
	p.Seconds, p.MinSeconds, p.MaxSeconds = median(took), slices.Min(took), slices.Max(took)
	p.TokensPerSecond = float64(p.Rows*n) / p.Seconds
	if o.Ops {
		ops, err = rec.profile(o.Runs, next)
	}
	return p, ops, err
}

func decodeSpeeds(rec *recorder, m *train.Model, o GenerateOptions) (list []DecodeSpeed, ops []Op, err error) {
	last := o.Positions[len(o.Positions)-1]
	e, err := newEngine(m, o.Rows, 1, last+2*o.Steps+1)
	if err != nil {
		return nil, nil, err
	}
	defer e.Close()
	one := randomTokens(o.Rows, m.Model.VocabSize)
	seconds, at := 0.0, 0 // time for all tokens up to a position
	for _, position := range o.Positions {
		if n := position - e.Position(0); n > 0 {
			// A step takes the same time whatever the contents of the states.
			if err := e.Skip(n); err != nil {
				return nil, nil, err
			}
		}
		o.between()
		step, err := greedySteps(e, one, m.Model.VocabSize, o.Steps)
		if err != nil {
			return nil, nil, err
		}
		d := DecodeSpeed{Position: position, Rows: o.Rows, StepMS: 1e3 * step, TokensPerSecond: float64(o.Rows) / step, StateBytes: e.HeldBytes()}
		// Between two positions the step time is assumed to change linearly.
		before := step
		if len(list) > 0 {
			before = list[len(list)-1].StepMS / 1e3
		}
		seconds += float64(position-at) * (before + step) / 2
		at = position
		d.Until = d.TokensPerSecond
		if seconds > 0 {
			d.Until = float64(o.Rows*position) / seconds
		}
		o.Log.Info("decoding", "position", position, "rows", o.Rows, "ms", fmt.Sprintf("%.3f", d.StepMS))
		list = append(list, d)
	}
	if o.Ops {
		ops, err = rec.profile(o.Steps, func() error {
			_, err := e.Draw(one, m.Model.VocabSize, nil, false)
			return err
		})
	}
	return list, ops, err
}

// greedySteps returns the mean time of a step in seconds, after one warm-up step. A step gives the
// host the most likely next token of every sequence, and the next step reads that token. The last
// tokens are written to tokens.
func greedySteps(e *generate.Engine, tokens []int32, vocab, steps int) (float64, error) {
	var started time.Time
	for i := range steps + 1 {
		if i == 1 {
			started = time.Now()
		}
		drawn, err := e.Draw(tokens, vocab, nil, i < steps)
		if err != nil {
			return 0, err
		}
		copy(tokens, drawn)
	}
	return time.Since(started).Seconds() / float64(steps), nil
}
