package train

import (
	"fmt"
	"sync"
	"time"
)

// halt notices that steps have come to a halt: a process that runs but trains no more, or a
// network that moves nothing, is waited for without end. Steps are the watched part of a
// run, as nothing bounds what is between them.
type halt struct {
	timeout time.Duration

	mu      sync.Mutex
	step    int64
	since   time.Time // when the step began that is being done; zero: none is
	longest time.Duration
}

// A step may take several times as long as the longest one before it, and the first one as
// long as kernels take to be loaded, and a library to connect. The time-out must pass twice:
// after once of it a process that died is known by its silence, which says more than a halt.
const (
	slower    = 10
	timeouts  = 2
	firstSlow = 10
)

// begins a step.
func (h *halt) begins(step int64, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.step, h.since = step, now
}

// ends the step.
func (h *halt) ends(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.longest = max(h.longest, now.Sub(h.since))
	h.since = time.Time{}
}

// noticed says what is wrong, if something is.
func (h *halt) noticed(now time.Time) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	patience := max(timeouts*h.timeout, slower*h.longest)
	if h.longest == 0 {
		patience = firstSlow * h.timeout
	}
	took := now.Sub(h.since)
	if h.since.IsZero() || took < patience {
		return ""
	}
	return fmt.Sprintf("step %d has not ended for %v, the longest before it took %v: a process, or what connects them, hangs", h.step, took.Round(time.Second), h.longest.Round(time.Millisecond))
}
