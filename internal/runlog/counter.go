package runlog

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// counterDelay is how long a piece of work may take before it is worth a bar.
const counterDelay = time.Second

// Counter shows on a terminal how far one piece of work is, where that takes more than a second, and
// leaves nothing behind. It is for one goroutine.
type Counter struct {
	w        io.Writer // nil shows nothing
	what     string
	style    barStyle
	after    time.Duration
	started  time.Time
	progress *progressbar.ProgressBar // nil while none is on the screen
}

// NewCounter returns a counter on f, which is os.Stderr outside tests. Where f is no terminal it shows
// nothing. The text what stands beside the bar.
func NewCounter(f *os.File, what string) *Counter {
	c := &Counter{what: what, after: counterDelay}
	if wantsBar(term.IsTerminal(int(f.Fd())), 1, os.Getenv) {
		c.w, c.style = f, styleOf(f)
	}
	return c
}

// Set shows that done of total is done. 0 begins a piece of work, total ends it.
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
		_ = c.progress.Set(done) // a terminal that is gone doesn't stop the work
	}
}

// Clear takes the bar off the screen, where there is one.
func (c *Counter) Clear() {
	if c.progress != nil {
		_ = c.progress.Clear()
		c.progress = nil
	}
}
