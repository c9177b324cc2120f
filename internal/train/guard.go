package train

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// errSkipped is returned by Engine.Step if the guard skipped the update.
var errSkipped = errors.New("the update was left out")

// guard decides which updates are skipped, according to train.guard. Its memory depends only on the
// losses and is part of a checkpoint's state.
type guard struct {
	recipes.Guard
	guardState
}

type guardState struct {
	// Skipped is the number of updates skipped so far, and InARow how many of the most recent ones
	// in a row.
	Skipped int64 `json:"skipped"`
	InARow  int   `json:"in_a_row"`
	// Losses are those of the last updates that were done, oldest first.
	Losses []float64 `json:"losses"`
}

// objection says why a loss should not be trained on; empty if there is no reason.
func (g *guard) objection(loss float64) string {
	if g.SkipNonFinite && (math.IsNaN(loss) || math.IsInf(loss, 0)) {
		return fmt.Sprintf("the loss is %v", loss)
	}
	if g.MaxZ == 0 || len(g.Losses) < g.Window {
		return ""
	}
	mean, deviation := meanDeviation(g.Losses[len(g.Losses)-g.Window:]) // more losses, if the window was longer before
	if z := (loss - mean) / deviation; z > g.MaxZ {
		return fmt.Sprintf("the loss %.4f is %.1f standard deviations above the last %d", loss, z, g.Window)
	}
	return ""
}

func meanDeviation(list []float64) (mean, deviation float64) {
	for _, x := range list {
		mean += x / float64(len(list))
	}
	for _, x := range list {
		deviation += (x - mean) * (x - mean) / float64(len(list))
	}
	return mean, math.Sqrt(deviation)
}

// verdict says why the update of a step was skipped, given the result of Engine.Step; empty if it
// was done. err ends the run.
func (g *guard) verdict(loss, norm float64, stepErr error) (skipped string, err error) {
	switch {
	case errors.Is(stepErr, errSkipped):
		return g.objection(loss), nil
	case errors.Is(stepErr, optim.ErrNotFinite) && g.SkipNonFinite:
		return fmt.Sprintf("the gradient's norm is %v", norm), nil
	case errors.Is(stepErr, optim.ErrNotFinite) || stepErr == nil && (math.IsNaN(loss) || math.IsInf(loss, 0)):
		return "", errDiverged
	}
	return "", stepErr
}

// errDiverged is for a loss or gradient that isn't finite, without a guard.
var errDiverged = errors.New("training has diverged")

// count records a step.
func (g *guard) count(loss float64, skipped bool) {
	if skipped {
		g.Skipped++
		g.InARow++
		return
	}
	g.InARow = 0
	if g.MaxZ > 0 {
		g.Losses = append(g.Losses, loss)
		g.Losses = g.Losses[max(0, len(g.Losses)-g.Window):]
	}
}

// abortion returns the error for too many skips in a row, or nil.
func (s *session) abortion(reason string) error {
	g := &s.guard
	if g.AbortAfter == 0 || g.InARow < g.AbortAfter {
		return nil
	}
	if err := s.finishSave(); err != nil {
		return err
	}
	from := "the run has saved no checkpoint"
	if c, _, err := checkpoint.Newest(s.dir); err == nil {
		from = "the last good checkpoint is " + filepath.ToSlash(c.Dir)
	}
	return fmt.Errorf("train.guard.abort_after: %d steps in a row were skipped, the last is step %d: %s; %s; continue with `%s` and a learning rate below %v",
		g.InARow, s.step, reason, from, s.resumeCommand(lowerLR), s.recipe.Optim.PeakLR)
}
