package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

// Files of a run directory, beside its checkpoints.
const (
	ConfigFile  = "config.resolved.yaml"
	MetricsFile = "metrics.jsonl"
	SampleFile  = "sample.txt"
	// ResultFile is the Result of a run that has done all its steps, written last.
	ResultFile = "result.json"
)

// Options are what a run needs beside its recipe.
type Options struct {
	Log *slog.Logger
	// Console makes what a person watches, once the number of steps is known.
	Console func(runlog.ConsoleOptions) runlog.Console
	// CodeVersion goes into every checkpoint.
	CodeVersion string
	// AllowDataChange lets a resumed run go on with other batches than it began with.
	AllowDataChange bool
	// Place is this process among those of the run.
	Place dist.Topology
	// Abort ends a process of several that waits inside a library for another one that is
	// lost. It does not return.
	Abort func(cause error)
}

// Result is what a finished run reports.
type Result struct {
	Run            string  `json:"run"`
	Steps          int64   `json:"steps"`
	Tokens         int64   `json:"tokens"`
	Parameters     int64   `json:"parameters"`
	TrainLoss      float64 `json:"train_loss"`
	ValLoss        float64 `json:"val_loss"`
	ValBitsPerByte float64 `json:"val_bits_per_byte"`
	// ValLonger is the validation on longer rows, where eval.lengths asks for it.
	ValLonger []runlog.ValAt `json:"val_longer,omitempty"`
	// UnigramBitsPerByte is what a model must beat to have learned any context; 0
	// where the shards don't say.
	UnigramBitsPerByte float64 `json:"unigram_bits_per_byte,omitempty"`
	// Device is what the run ended on.
	Device string `json:"device"`
	// TokensPerSecond is the median of all steps.
	TokensPerSecond float64 `json:"tokens_per_s"`
	// Seconds is the time since this process began to train.
	Seconds float64 `json:"seconds"`
	// Sources says how often each source was read: one without data.mixture, none of made-up rows.
	Sources []data.SourceRead `json:"sources,omitempty"`
	Sample  string            `json:"sample,omitempty"`
}

// Stopped is the error of a run that was asked to stop: it is saved and can be
// resumed.
type Stopped struct {
	Run string
	// Step is the last step done; -1 where a resumed run was stopped before it went on.
	Step int64
	// Compared: it is one run of a comparison.
	Compared bool
}

func (s *Stopped) Error() string {
	again := "go on with: sambatrain resume " + s.Run
	if s.Compared {
		again = "go on with the same command"
	}
	if s.Step < 0 {
		return "stopped before it went on, nothing is lost; " + again
	}
	if s.Compared {
		return fmt.Sprintf("stopped %s after step %d and saved; %s", s.Run, s.Step, again)
	}
	return fmt.Sprintf("stopped after step %d and saved; %s", s.Step, again)
}

// Pretrain starts the recipe's run in its own directory, which must not hold a
// run already. Of several processes the first one has the result, and the others nil.
func Pretrain(ctx context.Context, r *recipes.Recipe, o Options) (res *Result, err error) {
	s := newSession(r, o, r.Run.Out)
	defer func() { err = s.leave(err) }()
	if s.first() {
		lock, err := claim(s.dir)
		if err != nil {
			return nil, err
		}
		defer lock.Unlock()
		s.lock = lock
	}
	defer s.close()
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	err = s.together("begin the run", func() (err error) {
		if s.metrics, err = createMetrics(s.dir); err != nil {
			return err
		}
		// The config comes last: a folder that has one holds a run.
		return writeFile(filepath.Join(s.dir, ConfigFile), s.resolved)
	})
	if err != nil {
		return nil, err
	}
	return s.run(ctx)
}

// Resume goes on from the newest good checkpoint of a run directory, or from the
// start where none was saved yet. Of several processes the first one has the result,
// and the others nil. There may be more or fewer of them than before.
func Resume(ctx context.Context, dir string, o Options, sets ...string) (res *Result, err error) {
	r, err := LoadConfig(dir, sets...)
	if err != nil {
		return nil, err
	}
	s := newSession(r, o, dir)
	s.resumed = true
	defer func() { err = s.leave(err) }()
	if s.first() {
		if s.lock, err = checkpoint.Lock(dir); err != nil {
			return nil, err
		}
		defer s.lock.Unlock()
		for _, note := range s.lock.Recovered {
			o.Log.Warn(note)
		}
	}
	defer s.close()
	if err := s.open(ctx); errors.Is(err, context.Canceled) {
		return nil, &Stopped{Run: dir, Step: -1}
	} else if err != nil {
		return nil, err
	}
	if err := s.restore(); err != nil {
		return nil, err
	}
	return s.run(ctx)
}

// LoadConfig reads a run directory's resolved recipe.
func LoadConfig(dir string, sets ...string) (*recipes.Recipe, error) {
	text, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: not a run directory: it has no %s", dir, ConfigFile)
	}
	if err != nil {
		return nil, err
	}
	r, err := recipes.Parse(text, filepath.Join(dir, ConfigFile), sets...)
	if err != nil {
		return nil, err
	}
	r.Run.Out = dir // the folder may have moved
	return r, nil
}

// session is one process's work on a run.
type session struct {
	recipe   *recipes.Recipe
	options  Options
	lock     *checkpoint.Run
	dir      string
	resolved []byte

	dev     graph.Device
	engine  *Engine
	train   *data.Dataset
	val     *validation
	metrics *runlog.Metrics
	events  *runlog.Events
	console runlog.Console
	saver   *saver
	comm    graph.Comm
	line    *dist.Line
	halt    halt
	resumed bool          // rather than begun
	over    chan struct{} // closed when nothing needs to be ended from outside
	guard   guard
	step    int64 // optimizer steps done
	loss    float64
	// resumedWith is what of the data changed at a resume.
	resumedWith string
	// ended: all processes come to their end together. One that leaves without a word to
	// the others makes their launcher end them.
	ended bool
}

func newSession(r *recipes.Recipe, o Options, dir string) *session {
	return &session{recipe: r, options: o, dir: dir, over: make(chan struct{}), halt: halt{timeout: time.Duration(r.Run.Timeout)}}
}

func (s *session) close() {
	// After an error: what is being written is written to its end.
	if v, ok := s.saver.ended(true); ok && v.err != nil {
		s.options.Log.Error("the checkpoint that was being written failed", "step", v.step, "reason", v.err)
	}
	if s.comm != nil && s.ended {
		if err := s.dev.Leave(); err != nil {
			s.options.Log.Error("leaving the other processes", "reason", err)
		}
	}
	if s.console != nil {
		s.console.Close()
	}
	if s.metrics != nil {
		s.metrics.Close()
	}
	if s.events != nil {
		s.events.Close()
	}
	if s.dev != nil {
		s.dev.Close()
	}
}

// open gets engine and data ready: the engine first, so that a model that can't run
// is refused before hours of text are prepared for it.
func (s *session) open(ctx context.Context) (err error) {
	r, log := s.recipe, s.options.Log
	if s.resolved, err = r.YAML(); err != nil {
		return err
	}
	tok, err := data.NewTokenizer(r.Data.Tokenizer)
	if err != nil {
		return fmt.Errorf("data.tokenizer: %w", err)
	}
	if tok.VocabSize() > r.Model.VocabSize {
		return fmt.Errorf("model.vocab_size: %d is less than the %d of tokenizer %s", r.Model.VocabSize, tok.VocabSize(), tok.Name())
	}
	if err := checkShares(r, s.processes()); err != nil {
		return err
	}
	if s.dev, err = newDevice(r.Run, s.options.Place.LocalRank, s.products(), log); err != nil {
		return err
	}
	if err := s.joinProcesses(ctx); err != nil {
		return err
	}
	c, err := s.config()
	if err != nil {
		return err
	}
	c.EOS = tok.EOS()
	if s.engine, err = NewEngine(s.dev, &r.Model, r.Optim, c); err != nil {
		return err
	}
	boundGarbage()
	s.guard = guard{Guard: r.Train.Guard}
	if s.guard.SkipNonFinite || s.guard.MaxZ > 0 {
		s.engine.judge = s.guard.objection
	}
	s.saver = &saver{dir: s.dir, place: s.options.Place, line: s.line, lock: s.lock, keep: r.Checkpoint, sync: func() error { return s.metrics.Sync() }}
	if err := s.openData(ctx); err != nil {
		return err
	}
	log.Info("model", "parameters", s.parameters(), "device", s.dev.Name())
	return nil
}

// openData prepares the shards where that was not done before, and opens both
// splits.
func (s *session) openData(ctx context.Context) error {
	r, log := s.recipe, s.options.Log
	started := time.Now()
	last := started
	err := s.together("prepare the data", func() error {
		return data.PrepareAll(ctx, r.Data, func(p data.Progress) {
			if now := time.Now(); now.Sub(last) > time.Second {
				last = now
				log.Info("preparing token shards", "files", p.Files, "of", p.FilesTotal, "mb", p.Bytes>>20)
			}
		})
	})
	if err != nil {
		return err
	}
	if s.train, err = data.Open(ctx, r.Data, data.Train); err != nil {
		return err
	}
	if err := s.openValidation(ctx); err != nil {
		return err
	}
	if task := r.Data.Generate.Task; task != "" {
		log.Info("data", "generated", task)
		return nil
	}
	log.Info("data", "tokens", s.train.Tokens(), "rows", s.train.Blocks(), "took", time.Since(started).Round(time.Millisecond))
	return nil
}

// openValidation opens the validation split in rows of the longest of eval.lengths.
func (s *session) openValidation(ctx context.Context) error {
	r := s.recipe
	longest := r.Data
	longest.SeqLen *= slices.Max(r.Eval.Lengths)
	set, err := data.Open(ctx, longest, data.Validation)
	if err == nil {
		s.val, err = newValidation(s.engine, set, r.Eval.Rows, r.Eval.Lengths)
	}
	if err != nil && longest.SeqLen != r.Data.SeqLen {
		return fmt.Errorf("eval.lengths: rows of %d tokens: %w", longest.SeqLen, err)
	}
	return err
}

// products is where this process keeps which algorithms its GPU's matrix products take.
func (s *session) products() string {
	return filepath.Join(s.dir, fmt.Sprintf("products-%d.json", s.options.Place.Rank))
}

func (s *session) parameters() int64 {
	n := int64(0)
	for _, p := range s.engine.Params() {
		n += int64(p.Shape.Size())
	}
	return n
}

// restore loads the newest good checkpoint and takes the metrics back to it.
func (s *session) restore() error {
	c, skipped, err := checkpoint.Newest(s.dir)
	for _, bad := range skipped {
		s.options.Log.Error("checkpoint is damaged and passed over; its steps are done again", "checkpoint", bad.Dir, "reason", bad.Err)
	}
	switch {
	case errors.Is(err, checkpoint.ErrNoCheckpoint) && len(skipped) == 0:
		s.options.Log.Info("no checkpoint yet: starting again from step 0")
		if err := s.begin(); err != nil {
			return err
		}
	case errors.Is(err, checkpoint.ErrNoCheckpoint):
		return fmt.Errorf("%w; put a good one back, or delete %s to start again from step 0", err, filepath.Dir(skipped[0].Dir))
	case err != nil:
		return err
	default:
		if err := s.continueFrom(c); err != nil {
			return err
		}
	}
	if err := s.agree("the step that the run goes on from", s.step); err != nil {
		return err
	}
	return s.together("take the metrics back to that step", s.reopenMetrics)
}

// reopenMetrics takes the metrics back to the step that the run goes on from.
func (s *session) reopenMetrics() (err error) {
	metrics := filepath.Join(s.dir, MetricsFile)
	var cut runlog.Cut
	if s.metrics, cut, err = runlog.Reopen(metrics, int(s.step)); err != nil {
		return err
	}
	if cut.Records > 0 || cut.Torn != nil {
		s.options.Log.Info("metrics of steps that are done again were removed", "records", cut.Records, "torn_line", cut.Torn != nil)
	}
	return s.metrics.Append(runlog.EventRecord(int(s.step), time.Now(), runlog.EventResumed, s.resumedWith))
}

// Keys of a checkpoint's state: what identifies the shards, the seed of their order, and
// what the guard remembers.
const (
	dataKey  = "data"
	seedKey  = "data_seed"
	guardKey = "guard"
)

// continueFrom loads a checkpoint. The batches must be those that the run was trained
// on, unless the options allow others, and the position in them what the recipe gives
// for the checkpoint's step: otherwise rows would be left out or seen twice.
func (s *session) continueFrom(c *checkpoint.Checkpoint) error {
	s.step = c.State.Step
	if s.step == 0 {
		// No row was seen yet: the parameters may be another program's.
		return s.engine.Restore(c)
	}
	change, err := s.dataChange(c)
	if err != nil {
		return err
	}
	if change != "" && !s.options.AllowDataChange {
		return fmt.Errorf("%s; put back what the run was trained on, start a new run, or go on with other batches: sambatrain resume %s --allow-data-change", change, s.dir)
	}
	if change != "" {
		s.options.Log.Warn("the run goes on with other batches: rows may come twice or be left out", "step", s.step, "changed", change)
		s.resumedWith = change
	}
	if c.State.Position != s.position() || c.State.Tokens != s.tokensAt(s.step) {
		return fmt.Errorf("train.batch_size, data.seq_len: %s ends after %d rows and %d tokens, with this recipe it would be %d and %d; a run keeps its batch size and row length",
			c.Dir, c.State.Position, c.State.Tokens, s.position(), s.tokensAt(s.step))
	}
	trainedBy, err := c.ReadRecipe()
	if err != nil {
		return err
	}
	if list := changes(s.resolved, trainedBy); trainedBy != nil && len(list) > 0 {
		s.options.Log.Warn("the recipe is not the one of the checkpoint", "checkpoint", c.Dir, "changed", strings.Join(list, "; "))
	}
	if text, ok := c.State.Extra[guardKey]; ok {
		if err := json.Unmarshal(text, &s.guard.guardState); err != nil {
			return fmt.Errorf("%s: state.%s: %w", c.Dir, guardKey, err)
		}
		s.engine.CountSkipped(s.guard.Skipped)
	}
	return s.engine.Restore(c)
}

// dataChange says in what the batches that follow a checkpoint are others than those
// before it; "" where they are the same.
func (s *session) dataChange(c *checkpoint.Checkpoint) (string, error) {
	var was string
	if err := json.Unmarshal(c.State.Extra[dataKey], &was); err != nil {
		return "", fmt.Errorf("%s: its state does not say which data it was trained on: %w", c.Dir, err)
	}
	if is := s.train.Fingerprint(); is != was {
		return fmt.Sprintf("%s other data than the run was trained on (%s, was %s)", s.recipe.Data.Holder(), is, was), nil
	}
	text, ok := c.State.Extra[seedKey]
	if !ok {
		return "", nil // written before the seed was
	}
	var seed uint64
	if err := json.Unmarshal(text, &seed); err != nil {
		return "", fmt.Errorf("%s: state.%s: %w", c.Dir, seedKey, err)
	}
	if is := s.recipe.Data.Seed; is != seed {
		return fmt.Sprintf("data.seed: is %d, the run was trained with %d", is, seed), nil
	}
	return "", nil
}

// writeFile writes a whole file beside its place and renames it.
func writeFile(path string, text []byte) error {
	tmp := path + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
