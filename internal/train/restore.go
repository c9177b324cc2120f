package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
)

// restore loads the newest good checkpoint and truncates the metrics to it.
func (s *session) restore() error {
	defer s.slow("reading the newest checkpoint")()
	c, err := s.found(s.dir, s.newest)
	switch {
	case err != nil:
		return err
	case c == nil:
		s.options.Log.Info("no checkpoint yet: starting again from step 0")
		err = s.begin()
	default:
		err = s.continueFrom(c)
	}
	if err != nil {
		return err
	}
	if err := s.agree("the step that the run continues from", s.step); err != nil {
		return err
	}
	return s.together("take the metrics back to that step", s.reopenMetrics)
}

// opener opens checkpoints and watches each read.
func (s *session) opener() checkpoint.Opener { return checkpoint.Opener{Watch: s.halt.disk} }

// newest returns the run's newest good checkpoint, or nil if none has been saved yet.
func (s *session) newest() (*checkpoint.Checkpoint, error) {
	c, skipped, err := s.opener().Newest(s.dir)
	for _, bad := range skipped {
		s.options.Log.Error("checkpoint is damaged and skipped; its steps are repeated", "checkpoint", bad.Dir, "reason", bad.Err)
	}
	switch {
	case errors.Is(err, checkpoint.ErrNoCheckpoint) && len(skipped) == 0:
		return nil, nil
	case errors.Is(err, checkpoint.ErrNoCheckpoint):
		return nil, fmt.Errorf("%w; restore a good one, or delete %s to start again from step 0", err, filepath.Dir(skipped[0].Dir))
	}
	return c, err
}

// found returns a checkpoint in folder root, or nil. The first process finds it for all: only that
// process reads every file to verify it.
func (s *session) found(root string, find func() (*checkpoint.Checkpoint, error)) (*checkpoint.Checkpoint, error) {
	if !s.first() {
		below, err := s.line.Share(nil)
		if err != nil || len(below) == 0 {
			return nil, err
		}
		return s.opener().Describe(filepath.Join(root, filepath.FromSlash(string(below))))
	}
	c, err := find()
	if err != nil {
		return nil, err
	}
	below := ""
	if c != nil {
		if below, err = filepath.Rel(root, c.Dir); err != nil {
			return nil, err
		}
	}
	_, err = s.line.Share([]byte(filepath.ToSlash(below)))
	return c, err
}

// reopenMetrics truncates the metrics to the step that the run continues from.
func (s *session) reopenMetrics() (err error) {
	metrics := filepath.Join(s.dir, MetricsFile)
	defer s.halt.disk("reading and cutting " + metrics)()
	var cut runlog.Cut
	s.metrics, cut, err = runlog.Reopen(metrics, int(s.step))
	if errors.Is(err, fs.ErrNotExist) {
		s.metrics, err = runlog.Create(metrics)
	}
	if err != nil {
		return err
	}
	if int64(cut.Kept) < s.step {
		s.options.Log.Warn("metrics were lost: the file does not have all steps done so far", "file", metrics, "has", cut.Kept, "of", s.step)
	}
	if cut.Records > 0 || cut.Torn != nil {
		s.options.Log.Info("removed metrics of steps that are repeated", "records", cut.Records, "torn_line", cut.Torn != nil)
	}
	with, err := s.resumedWith()
	if err != nil {
		return err
	}
	return s.metrics.Append(runlog.EventRecord(int(s.step), time.Now(), runlog.EventResumed, with))
}

// Keys of a checkpoint's state: what identifies the shards, the seed of their order, and the
// guard's memory.
const (
	dataKey  = "data"
	seedKey  = "data_seed"
	guardKey = "guard"
)

// continueFrom loads a checkpoint. The batches must be those that the run was trained on, unless
// the options allow others, and the position in them must be the one that the recipe gives for the
// checkpoint's step: otherwise rows would be skipped or seen twice.
func (s *session) continueFrom(c *checkpoint.Checkpoint) error {
	s.step, s.saved = c.State.Step, c.Dir
	if s.step > s.recipe.Train.Steps {
		return s.past()
	}
	if s.step == 0 {
		// No row was seen yet: the parameters may be another program's.
		return s.engine.Restore(c)
	}
	change, err := s.dataChange(c)
	if err != nil {
		return err
	}
	if change != "" && !s.options.AllowDataChange {
		o := s.options
		o.AllowDataChange = true
		return fmt.Errorf("%s; restore the data that the run was trained on, start a new run, or continue with other batches: %s", change, o.resumeCommand(s.dir, s.sets))
	}
	if change != "" {
		s.options.Log.Warn("continuing with other batches: rows may be repeated or left out", "step", s.step, "changed", change)
		s.otherData = change
	}
	if c.State.Position != s.position() || c.State.Tokens != s.tokensAt(s.step) {
		return fmt.Errorf("train.batch_size, data.seq_len: %s ends after %d rows and %d tokens, with this recipe it would be %d and %d; a run keeps its batch size and row length",
			c.Dir, c.State.Position, c.State.Tokens, s.position(), s.tokensAt(s.step))
	}
	trainedBy, err := c.ReadRecipe()
	if err != nil {
		return err
	}
	var changed []string
	if trainedBy != nil {
		changed = changes(s.recipe, trainedBy)
		unasked, err := s.unasked(changed, trainedBy)
		if err != nil {
			return err
		}
		if len(unasked) > 0 {
			s.options.Log.Warn("the recipe differs from that of the checkpoint", "checkpoint", c.Dir, "changed", strings.Join(unasked, "; "))
		}
	}
	if text, ok := c.State.Extra[guardKey]; ok {
		if err := json.Unmarshal(text, &s.guard.guardState); err != nil {
			return fmt.Errorf("%s: state.%s: %w", c.Dir, guardKey, err)
		}
		s.engine.CountSkipped(s.guard.Skipped)
	}
	err = s.engine.Restore(c)
	changed = slices.DeleteFunc(changed, func(key string) bool { return !strings.HasPrefix(key, "model.") })
	if err != nil && len(changed) > 0 {
		return fmt.Errorf("%w; a run keeps its model: take back %s, or start a new run", err, strings.Join(changed, ", "))
	}
	return err
}

// dataChange says how the batches after a checkpoint differ from those before it; "" if they don't.
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
		return "", nil // written before the seed was saved
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
