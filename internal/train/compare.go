package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// Comparison holds the results of several recipes on the same tokens.
type Comparison struct {
	Steps  int64      `json:"steps"`
	Tokens int64      `json:"tokens"`
	SeqLen int        `json:"seq_len"`
	Runs   []Compared `json:"runs"`
}

// Compared is one run of a comparison.
type Compared struct {
	Name       string `json:"name"`
	Run        string `json:"run"`
	Parameters int64  `json:"parameters"`
	// NonEmbedding excludes the embedding and an untied head.
	NonEmbedding int64  `json:"non_embedding"`
	Device       string `json:"device,omitempty"`
	// TokensPerSecond is the median of all training steps.
	TokensPerSecond float64 `json:"tokens_per_s,omitempty"`
	// Validation has one measurement for each of eval.lengths.
	Validation []Measured `json:"validation,omitempty"`
	// Error says why there are no results.
	Error string `json:"error,omitempty"`
}

// Measured is a validation on rows of Length tokens.
type Measured struct {
	Times       int     `json:"times"` // Length relative to that of training
	Length      int     `json:"length"`
	Loss        float64 `json:"loss"` // nats per token
	Perplexity  float64 `json:"perplexity"`
	BitsPerByte float64 `json:"bits_per_byte"`
}

// Compare trains each recipe in its own run directory, one after the other, and collects the
// results. A finished run is not trained again, and a stopped one is resumed. If one fails, the
// others are still trained, and its error takes the place of its results. A run that another process is
// training ends the comparison. The error is Stopped if ctx ends.
func Compare(ctx context.Context, list []*recipes.Recipe, o Options) (*Comparison, error) {
	if !o.Place.Single() {
		return nil, fmt.Errorf("compare: trains in one process, this is %v", o.Place)
	}
	if err := sameTokens(list); err != nil {
		return nil, err
	}
	first := list[0]
	c := &Comparison{Steps: first.Train.Steps, SeqLen: first.Data.SeqLen}
	c.Tokens = c.Steps * int64(first.Train.BatchSize) * int64(first.Data.SeqLen)
	for i, r := range list {
		o.Log.Info("compare", "recipe", r.Name, "number", i+1, "of", len(list))
		row, err := describe(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Name, err)
		}
		res, err := Finish(ctx, r, o)
		var stopped *Stopped
		switch {
		case errors.As(err, &stopped):
			return nil, &Stopped{Run: stopped.Run, Step: stopped.Step}
		case err != nil && ctx.Err() != nil:
			return nil, &Stopped{Run: r.Run.Out, Step: -1}
		case errors.Is(err, checkpoint.ErrInUse):
			return nil, err // perhaps another comparison, whose results these would replace
		case err != nil:
			o.Log.Error("compare", "recipe", r.Name, "error", err)
			row.Error = err.Error()
		default:
			row.report(res, r)
		}
		c.Runs = append(c.Runs, row)
	}
	return c, nil
}

// sameTask are the sections and keys in which compared recipes must agree. In data, only the check
// of the shards' bytes may differ.
var sameTask = []string{"data.", "train.steps", "train.batch_size", "train.seed", "eval.rows", "eval.lengths"}

// sameTokens rejects recipes that would not see the same tokens, or not be measured in the same
// way.
func sameTokens(list []*recipes.Recipe) error {
	names := map[string]bool{}
	for _, r := range list {
		if names[r.Name] {
			return fmt.Errorf("compare: two recipes are named %s; their runs need different names (key name)", r.Name)
		}
		names[r.Name] = true
		different, err := recipes.Differences(list[0], r)
		if err != nil {
			return err
		}
		for _, d := range different {
			if d.Key != "data.skip_verify" && slices.ContainsFunc(sameTask, func(k string) bool { return strings.HasPrefix(d.Key, k) }) {
				return fmt.Errorf("compare: %s and %s don't train on the same tokens: %v; give all the same value with --set %s=...", list[0].Name, r.Name, d, d.Key)
			}
		}
	}
	return nil
}

// describe returns what is known about a recipe before it is trained.
func describe(r *recipes.Recipe) (Compared, error) {
	stack, err := r.Model.Sublayers()
	if err != nil {
		return Compared{}, err
	}
	// Parameters don't depend on rows and their length.
	plan, err := evalPlan(&r.Model, EngineConfig{Precision: r.Precision()}, nil, 1, 1)
	if err != nil {
		return Compared{}, err
	}
	n := count(plan.Params, stack)
	return Compared{Name: r.Name, Run: r.Run.Out, Parameters: n.Total, NonEmbedding: n.NonEmbedding}, nil
}

// Finish completes a recipe's run whatever its state: it starts it, continues it, or finds it
// finished.
func Finish(ctx context.Context, r *recipes.Recipe, o Options) (*Result, error) {
	dir := r.Run.Out
	if _, err := os.Stat(filepath.Join(dir, ConfigFile)); errors.Is(err, fs.ErrNotExist) {
		return Pretrain(ctx, r, o)
	}
	was, err := LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	different, err := recipes.Differences(was, r)
	if err != nil {
		return nil, err
	}
	var sets []string
	for _, d := range different {
		// The place of computation may change between stopping and continuing.
		if !strings.HasPrefix(d.Key, "run.") {
			return nil, fmt.Errorf("%s: holds a run of another recipe (%v); make this recipe equal to it, choose another folder with --out, or delete it", dir, d)
		}
		sets = append(sets, d.Key+"="+d.B)
	}
	res, err := ReadResult(dir)
	switch {
	case err == nil && res.Steps == r.Train.Steps:
		o.Log.Info("finished already", "run", dir)
		if o.Place.Rank > 0 {
			res = nil
		}
		return res, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; `%s` rewrites it", err, o.resumeCommand(dir, sets))
	}
	return Resume(ctx, dir, o, sets...)
}

// ReadResult returns the result of a run that has done all its steps, or fs.ErrNotExist.
func ReadResult(dir string) (*Result, error) {
	path := filepath.Join(dir, ResultFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	res := &Result{}
	if err := json.Unmarshal(text, res); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return res, nil
}

func (c *Compared) report(res *Result, r *recipes.Recipe) {
	c.Device, c.TokensPerSecond = res.Device, res.TokensPerSecond
	all := append([]runlog.ValAt{{Times: 1, Loss: res.ValLoss, BitsPerByte: res.ValBitsPerByte}}, res.ValLonger...)
	for _, v := range all {
		c.Validation = append(c.Validation, Measured{Times: v.Times, Length: v.Times * r.Data.SeqLen,
			// JSON has no infinity.
			Loss: v.Loss, Perplexity: min(math.Exp(v.Loss), math.MaxFloat64), BitsPerByte: v.BitsPerByte})
	}
}
