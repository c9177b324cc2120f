package recipes

import "fmt"

// Guard says when an update is left out: parameters and moments stay as they are, the
// step counts, and its data is not seen again. By default none is, and a loss or a
// gradient that isn't finite ends the run.
type Guard struct {
	// SkipNonFinite leaves out steps whose loss or gradient is infinite or not a number.
	SkipNonFinite bool `yaml:"skip_non_finite" json:"skip_non_finite"`
	// MaxZ leaves out steps whose loss is more than this many standard deviations above
	// the mean of the last Window losses that were trained on; 0 leaves none out.
	MaxZ float64 `yaml:"max_z" json:"max_z"`
	// Window is the losses that MaxZ looks at. Before there are as many, none is left out.
	Window int `yaml:"window" json:"window"`
	// AbortAfter ends the run after as many left out in a row; 0 never does.
	AbortAfter int `yaml:"abort_after" json:"abort_after"`
}

// DefaultGuard leaves nothing out.
func DefaultGuard() Guard { return Guard{Window: 100, AbortAfter: 10} }

// maxWindow bounds what a checkpoint's manifest holds of losses.
const maxWindow = 10_000

// Validate names the key that is wrong.
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
