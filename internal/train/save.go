package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
)

// save starts writing a checkpoint of the current step. Only one is written at a time: if the
// previous one isn't complete yet, training waits for it.
func (s *session) save() error {
	started := time.Now()
	if s.saver.underway != nil {
		if v, ok := s.saver.ended(false); ok {
			if err := s.recordSaved(v); err != nil {
				return err
			}
		} else {
			if !s.saver.waited {
				s.options.Log.Warn("training waits: the previous checkpoint is still being written; later waits are in "+MetricsFile+" alone, as checkpoint_stall_ms",
					"step", s.step, "checkpoint_of_step", s.saver.step)
			}
			s.saver.waited = true
			if err := s.finishSave(); err != nil {
				return err
			}
		}
	}
	if !s.alone() {
		if err := s.together("begin a checkpoint", func() error { return s.lock.Begin(s.step) }); err != nil {
			return err
		}
	}
	copying := func() error { return s.engine.snapshotTo(&s.saver.snapshot) }
	if err := s.halt.during(onDisk, fmt.Sprintf("the copy of step %d for its checkpoint", s.step), copying); err != nil {
		return err
	}
	extra := map[string]json.RawMessage{}
	for key, value := range map[string]any{dataKey: s.train.Fingerprint(), seedKey: s.recipe.Data.Seed, guardKey: s.guard.guardState} {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		extra[key] = text
	}
	s.saver.start(checkpoint.State{
		Extra: extra, Step: s.step, Tokens: s.tokensAt(s.step), Position: s.position(),
		CodeVersion: s.options.CodeVersion, Recipe: s.resolved, RecipeSHA256: checkpoint.RecipeSHA256(s.resolved),
	}, time.Since(started))
	return nil
}

// finishSave waits for the save in progress.
func (s *session) finishSave() error {
	if v, ok := s.saver.ended(true); ok {
		return s.recordSaved(v)
	}
	return nil
}

// lastSave saves before the run ends, unless the step is already saved. All processes wait for it:
// a launcher may end the remaining ones when one has ended.
func (s *session) lastSave() error {
	if s.saver.step != s.step {
		if err := s.save(); err != nil {
			return err
		}
	}
	if !s.first() {
		if err := s.finishSave(); err != nil {
			return err
		}
	}
	return s.together("save the last checkpoint", s.finishSave)
}

// recordSaved records the outcome of a save.
func (s *session) recordSaved(v saved) error {
	if errors.Is(v.err, errSpoilt) {
		return fmt.Errorf("step %d: %w: no checkpoint is made of it; continue from the one before with `%s` and a learning rate below %v", v.step, v.err, s.resumeCommand(lowerLR), s.recipe.Optim.PeakLR)
	}
	if v.err != nil {
		return v.err
	}
	if v.left != nil {
		s.options.Log.Warn("older checkpoints could not be removed; the next save tries again", "reason", v.left)
	}
	s.saved = v.dir
	r := runlog.EventRecord(int(v.step), time.Now(), runlog.EventCheckpoint, v.dir)
	stall := float64(v.stall) / float64(time.Millisecond)
	r.Event.StallMS = &stall
	return s.record(r)
}
