package train

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/internal/wholefile"
	"github.com/sambatrain/sambatrain/recipes"
)

// Files of a run directory, besides its checkpoints.
const (
	ConfigFile  = "config.resolved.yaml"
	MetricsFile = "metrics.jsonl"
	SampleFile  = "sample.txt"
	// ResultFile is the Result of a run that has done all its steps; it is written last.
	ResultFile = "result.json"
)

// Options are what a run needs besides its recipe.
type Options struct {
	Log *slog.Logger
	// Console makes the console, once the number of steps is known.
	Console func(runlog.ConsoleOptions) runlog.Console
	// CodeVersion is stored in every checkpoint.
	CodeVersion string
	// AllowDataChange lets a resumed run continue with other batches than it began with.
	AllowDataChange bool
	// Flags are the other flags that the user gave to this command and that resume has too, as
	// words. Commands that a message suggests repeat them.
	Flags []string
	// Place is this process's place among those of the run.
	Place dist.Topology
	// Abort ends one of several processes while it waits inside a library for another one that is
	// lost. It does not return.
	Abort func(cause error)

	haltAfter time.Duration // replaces run.timeout for a halt; 0 means run.timeout
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
	// ValLonger is the validation on longer rows, if eval.lengths asks for it.
	ValLonger []runlog.ValAt `json:"val_longer,omitempty"`
	// ValBySource is the validation on the rows of each source of a mixture.
	ValBySource []runlog.ValOf `json:"val_by_source,omitempty"`
	// UnigramBitsPerByte is what a model must beat to have learned any context; 0 if the shards
	// don't contain it.
	UnigramBitsPerByte float64 `json:"unigram_bits_per_byte,omitempty"`
	// Device is the device on which the run ended.
	Device string `json:"device"`
	// TokensPerSecond is the median of all steps.
	TokensPerSecond float64 `json:"tokens_per_s"`
	// Seconds is the time since this process started training.
	Seconds float64 `json:"seconds"`
	// Sources says how often each source was read: a single one without data.mixture, none with
	// generated rows.
	Sources []data.SourceRead `json:"sources,omitempty"`
	Sample  string            `json:"sample,omitempty"`
}

// Stopped is the error of a run that was asked to stop: it is saved and can be resumed.
type Stopped struct {
	Run string
	// Step is the last step done; -1 if the run was stopped before it began or continued.
	Step int64
	// Command continues the run; empty if the same command does: of a comparison, and of a run that
	// hasn't begun.
	Command string
}

func (s *Stopped) Error() string {
	again := "continue with: " + s.Command
	if s.Command == "" {
		again = "continue with the same command"
	}
	if s.Step < 0 {
		return "stopped before the next step, nothing is lost; " + again
	}
	if s.Command == "" {
		return fmt.Sprintf("stopped %s after step %d and saved; %s", s.Run, s.Step, again)
	}
	return fmt.Sprintf("stopped after step %d and saved; %s", s.Step, again)
}

// Pretrain starts the recipe's run in its own directory, which must not contain a run yet. With
// several processes the first one returns the result, and the others nil.
func Pretrain(ctx context.Context, r *recipes.Recipe, o Options) (res *Result, err error) {
	s := newSession(r, o, r.Run.Out)
	defer func() { err = s.leave(err) }()
	begun := false
	if s.first() {
		lock, made, err := claim(s.dir, o, -1)
		if err != nil {
			return nil, err
		}
		defer func() {
			if made && !begun {
				lock.Abandon()
			} else {
				lock.Unlock()
			}
		}()
		s.lock = lock
	}
	defer s.close()
	if err := s.open(ctx); errors.Is(err, context.Canceled) {
		return nil, s.stopped(-1)
	} else if err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, err
	}
	err = s.together("begin the run", func() (err error) {
		defer s.halt.disk("writing the first files of " + s.dir)()
		if s.metrics, err = createMetrics(s.dir); err != nil {
			return err
		}
		if err := keepTokenizer(s.dir, s.recipe.Data.Tokenizer); err != nil {
			return err
		}
		// The config comes last: a folder that has one contains a run.
		return wholefile.Write(filepath.Join(s.dir, ConfigFile), s.resolved)
	})
	if err != nil {
		return nil, err
	}
	begun = true
	return s.run(ctx)
}

// Resume continues from the newest good checkpoint of a run directory, or from the start if none
// has been saved yet. With several processes the first one returns the result, and the others nil.
// Their number may differ from before. sets change keys of the run's recipe, for good except those
// of run.
func Resume(ctx context.Context, dir string, o Options, sets ...string) (res *Result, err error) {
	r, err := LoadConfig(dir, sets...)
	if err != nil {
		return nil, err
	}
	s := newSession(r, o, dir)
	s.resumed, s.sets = true, sets
	defer func() { err = s.leave(err) }()
	if s.first() {
		if s.lock, err = lockRun(dir, o.Log); err != nil {
			return nil, err
		}
		defer s.lock.Unlock()
	}
	defer s.close()
	if err := s.open(ctx); errors.Is(err, context.Canceled) {
		return nil, s.stopped(-1)
	} else if err != nil {
		return nil, err
	}
	if err := s.restore(); err != nil {
		return nil, err
	}
	if err := s.keepSets(); err != nil {
		return nil, err
	}
	return s.run(ctx)
}

// isRun reports whether a folder contains a run.
func isRun(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, ConfigFile))
	return err == nil
}

// runsIn returns the names of the runs in a folder.
func runsIn(folder string) []string {
	entries, _ := os.ReadDir(folder) // a folder that can't be read has no names to offer
	var names []string
	for _, e := range entries {
		if isRun(filepath.Join(folder, e.Name())) {
			names = append(names, e.Name())
		}
	}
	return names
}

// LoadConfig reads a run directory's resolved recipe. Errors say what dir is instead.
func LoadConfig(dir string, sets ...string) (*recipes.Recipe, error) {
	text, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		info, statErr := os.Stat(dir)
		switch {
		case errors.Is(statErr, fs.ErrNotExist):
			// The place where a recipe without run.out puts its run.
			if near := filepath.Join("runs", dir); isRun(near) {
				return nil, fmt.Errorf("%s: no such run directory; did you mean %s?", dir, near)
			}
			if near := recipes.NearestName(filepath.Base(dir), runsIn(filepath.Dir(dir))); near != "" {
				return nil, fmt.Errorf("%s: no such run directory; did you mean %s?", dir, filepath.Join(filepath.Dir(dir), near))
			}
			return nil, fmt.Errorf("%s: no such run directory", dir)
		case statErr == nil && !info.IsDir():
			return nil, fmt.Errorf("%s: not a run directory but a file; `sambatrain pretrain` begins a run with a recipe", dir)
		case checkpoint.Is(dir):
			return nil, fmt.Errorf("%s: not a run directory but a checkpoint; name its run", dir)
		case errors.Is(err, fs.ErrNotExist):
			if newest := newestListed(dir); newest != nil {
				return nil, lostConfig(dir, newest)
			}
			if runs := runsIn(dir); len(runs) > 0 {
				return nil, fmt.Errorf("%s: not a run directory but a folder of runs; name one, such as %s", dir, filepath.Join(dir, runs[0]))
			}
			return nil, fmt.Errorf("%s: not a run directory: it has no %s", dir, ConfigFile)
		}
		return nil, err
	}
	name := filepath.Join(dir, ConfigFile)
	was, err := parseWritten(text, name)
	if err != nil {
		return nil, err
	}
	r, err := parseWritten(text, name, sets...)
	if err != nil {
		return nil, err
	}
	if r.Run.Out != was.Run.Out {
		return nil, fmt.Errorf("run.out: a run stays in its folder, %s; copy the folder to continue elsewhere", dir)
	}
	r.Run.Out = dir // the folder may have been moved
	return r, nil
}
