package recipes

import "fmt"

// Guard says when an update is skipped: parameters and moments stay unchanged, the step counts, and
// its data is not used again. By default none is skipped, and a loss or a gradient that isn't
// finite ends the run.
type Guard struct {
	// SkipNonFinite skips steps whose loss or gradient is infinite or not a number.
	SkipNonFinite bool `yaml:"skip_non_finite" json:"skip_non_finite"`
	// MaxZ skips steps whose loss is more than this many standard deviations above the mean of the
	// last Window losses that were trained on; 0 skips none.
	MaxZ float64 `yaml:"max_z" json:"max_z"`
	// Window is the number of losses that MaxZ considers. Until there are that many, no step is
	// skipped.
	Window int `yaml:"window" json:"window"`
	// AbortAfter ends the run after that many skipped steps in a row; 0 means never.
	AbortAfter int `yaml:"abort_after" json:"abort_after"`
}

// DefaultGuard skips nothing.
func DefaultGuard() Guard { return Guard{Window: 100, AbortAfter: 10} }

// maxWindow limits the number of losses in a checkpoint's manifest.
const maxWindow = 10_000

// Validate returns an error that names the wrong key.
func (g Guard) Validate() error {
	switch {
	case !(g.MaxZ >= 0):
		return fmt.Errorf("train.guard.max_z: must be positive, or 0 to skip no spikes, is %v", g.MaxZ)
	case g.Window < 2 || g.Window > maxWindow:
		return fmt.Errorf("train.guard.window: must be 2 to %d, is %d", maxWindow, g.Window)
	case g.AbortAfter < 0:
		return fmt.Errorf("train.guard.abort_after: must be at least 1, or 0 for never, is %d", g.AbortAfter)
	}
	return nil
}
