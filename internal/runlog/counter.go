package runlog

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// counterDelay is the time that a piece of work must take before it gets a bar.
const counterDelay = time.Second

// Counter shows the progress of one piece of work on a terminal if it takes more than a second, and
// leaves nothing behind. It must be used by one goroutine only.
type Counter struct {
	w        io.Writer // nil shows nothing
	what     string
	style    barStyle
	after    time.Duration
	started  time.Time
	progress *progressbar.ProgressBar // nil while none is on the screen
}

// NewCounter returns a counter on f, which is os.Stderr outside tests. If f is not a terminal it
// shows nothing. The text `what` is shown beside the bar.
func NewCounter(f *os.File, what string) *Counter {
	c := &Counter{what: what, after: counterDelay}
	if wantsBar(term.IsTerminal(int(f.Fd())), 1, os.Getenv) {
		c.w, c.style = f, styleOf(f)
	}
	return c
}

// Shows reports whether there is a terminal to show anything on.
func (c *Counter) Shows() bool { return c.w != nil }

// Set shows that `done` of `total` is done. 0 begins a piece of work, total ends it.
func (c *Counter) Set(done, total int) {
	switch {
	case c.w == nil:
	case done == 0:
		c.Clear()
		c.started = time.Now()
	case done >= total:
		c.Clear()
	case time.Since(c.started) >= c.after:
		if c.progress == nil {
			c.progress = c.style.progress(c.w, total, progressbar.OptionSetDescription(c.what),
				progressbar.OptionSetPredictTime(false), progressbar.OptionThrottle(c.style.every))
		}
		_ = c.progress.Set(done) // losing the terminal doesn't stop the work
	}
}

// Clear removes the bar from the screen, if there is one.
func (c *Counter) Clear() {
	if c.progress != nil {
		_ = c.progress.Clear()
		c.progress = nil
	}
}
