package checkpoint

import "fmt"

// Config is a recipe's checkpoint section.
type Config struct {
	// Every is the number of steps between two saves. The last step, and the step at which a run is
	// interrupted, are always saved. Default 500.
	Every int `yaml:"every"`
	// KeepLast is the number of newest checkpoints to keep. The default is 3, so that one bad file
	// or one bad step leaves something to go back to.
	KeepLast int `yaml:"keep_last"`
	// KeepEvery also keeps, permanently, the checkpoints whose step is a multiple of it. The
	// default is 0: none.
	KeepEvery int `yaml:"keep_every"`
}

// DefaultConfig is the section of a recipe that has none.
func DefaultConfig() Config {
	return Config{Every: 500, KeepLast: 3, KeepEvery: 0}
}

// Validate returns an error that names the wrong key and says what it may be.
func (c Config) Validate() error {
	switch {
	case c.Every < 1:
		return fmt.Errorf("checkpoint.every: %d; give a number of steps, at least 1", c.Every)
	case c.KeepLast < 1:
		return fmt.Errorf("checkpoint.keep_last: %d; at least 1 checkpoint must be kept", c.KeepLast)
	case c.KeepEvery < 0:
		return fmt.Errorf("checkpoint.keep_every: %d; give a number of steps, or 0 to keep only the last ones", c.KeepEvery)
	case c.KeepEvery%c.Every != 0:
		return fmt.Errorf("checkpoint.keep_every: %d is not a multiple of checkpoint.every (%d), so its steps are not saved", c.KeepEvery, c.Every)
	}
	return nil
}

// Room returns how many more checkpoints are on the disk at once, at most, while a run that holds
// some goes from one step to its last: an old one is removed when a new one is complete.
func (c Config) Room(held int, step, last int64) int64 {
	multiples := func(of int) int64 { return last/int64(of) - step/int64(of) }
	saves := multiples(c.Every)
	if last%int64(c.Every) != 0 {
		saves++
	}
	kept := int64(c.KeepLast+1) - int64(min(held, c.KeepLast))
	if c.KeepEvery > 0 {
		kept += multiples(c.KeepEvery)
	}
	return min(saves, kept)
}
