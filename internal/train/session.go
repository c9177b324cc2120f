package train

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

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
	resumed bool          // rather than started
	sets    []string      // what a resumed run's recipe is changed by, as key=value
	over    chan struct{} // closed when nothing needs to be ended from outside
	guard   guard
	step    int64 // optimizer steps done
	loss    float64
	saved   string // folder of the last checkpoint, in the first process
	// otherData says what changed in the data at a resume.
	otherData string
	// ended: all processes end together. If one leaves without telling the others, their launcher
	// ends them.
	ended bool
}

func newSession(r *recipes.Recipe, o Options, dir string) *session {
	s := &session{recipe: r, options: o, dir: dir, over: make(chan struct{})}
	s.halt.timeout = cmp.Or(o.haltAfter, time.Duration(r.Run.Timeout))
	return s
}

func (s *session) close() {
	// After an error: a checkpoint that is being written is completed.
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

// open prepares engine and data: the engine first, so that a model that can't run is refused before
// hours of text are prepared for it.
func (s *session) open(ctx context.Context) (err error) {
	r, log := s.recipe, s.options.Log
	if s.resolved, err = r.YAML(); err != nil {
		return err
	}
	tok, err := data.NewTokenizer(r.Data.Tokenizer)
	if err != nil {
		return fmt.Errorf("data.tokenizer: %w", err)
	}
	if err := r.CheckTokenizer(tok); err != nil {
		return err
	}
	if err := checkShares(r, s.processes()); err != nil {
		return err
	}
	if s.dev, err = newDevice(r.Run, s.options.Place.LocalRank, log); err != nil {
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
	logTuned(s.dev, log)
	boundGarbage()
	s.guard = guard{Guard: r.Train.Guard}
	if s.guard.SkipNonFinite || s.guard.MaxZ > 0 {
		s.engine.judge = s.guard.objection
	}
	s.saver = &saver{step: -1, dir: s.dir, place: s.options.Place, line: s.line, lock: s.lock, keep: r.Checkpoint, sync: func() error { return s.metrics.Sync() }, watch: s.halt.disk}
	if s.lock != nil {
		s.lock.Watch(s.halt.disk)
	}
	if err := s.openData(ctx); err != nil {
		return err
	}
	log.Info("model", "parameters", s.parameters(), "device", s.dev.Name(), "precision", r.PrecisionText())
	return nil
}

// openData prepares the shards if that has not been done before, and opens both splits.
func (s *session) openData(ctx context.Context) error {
	ctx = data.WithWatch(ctx, s.halt.disk)
	r, log := s.recipe, s.options.Log
	started := time.Now()
	last := started
	err := s.together("prepare the data", func() error {
		if err := r.Data.CheckHeldOut(); err != nil {
			return err
		}
		return data.PrepareAll(ctx, r.Data, func(p data.Progress) {
			if now := time.Now(); now.Sub(last) > time.Second {
				last = now
				log.Info("preparing token shards", "files", p.Files, "of", p.FilesTotal, "mb", p.Bytes/1e6)
			}
		})
	})
	if err != nil {
		return err
	}
	opening := "verifying the checksums of the token shards, which data.skip_verify leaves out"
	if r.Data.SkipVerify {
		opening = "opening the token shards"
	}
	defer s.slow(opening)()
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
	log.Info("data", "tokens", s.train.Tokens(), "rows", s.train.Blocks(), "validation_rows", s.val.rows, "took", time.Since(started).Round(time.Millisecond))
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

func (s *session) parameters() int64 {
	n := int64(0)
	for _, p := range s.engine.Params() {
		n += int64(p.Shape.Size())
	}
	return n
}
