package train

import (
	"fmt"
	"sync"
	"time"
)

// halt notices that a run has come to a halt: a process that runs but comes no further, a
// network that moves nothing, or a disk that does not answer, is waited for without end. What
// is watched are spells: what a run does again and again, and what takes about as long each
// time.
type halt struct {
	timeout time.Duration

	mu       sync.Mutex
	underway map[*spell]bool
	longest  [spellKinds]time.Duration // that have ended
}

// spell is one time that something watched is done.
type spell struct {
	kind  spellKind
	what  string
	since time.Time
}

// spellKind is what a spell is of.
type spellKind int

const (
	stepping   spellKind = iota // a step, with its wait for rows
	validating                  // one pass of a validation, or the sum over the processes
	onDisk                      // one operation on the disk, or a copy from the device
	spellKinds
)

// A spell may take several times as long as the longest one before it. The time-out must pass
// twice: after once of it a process that died is known by its silence, which says more than a
// halt. The first spell may take as long as kernels take to be loaded, and a library to connect;
// one on the disk always may, as a sync takes as long as what was written before.
const (
	slower    = 10
	timeouts  = 2
	firstSlow = 10
)

func (h *halt) begins(kind spellKind, what string, now time.Time) *spell {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.underway == nil {
		h.underway = map[*spell]bool{}
	}
	s := &spell{kind, what, now}
	h.underway[s] = true
	return s
}

func (h *halt) ends(s *spell, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.longest[s.kind] = max(h.longest[s.kind], now.Sub(s.since))
	delete(h.underway, s)
}

// during watches f.
func (h *halt) during(kind spellKind, what string, f func() error) error {
	s := h.begins(kind, what, time.Now())
	defer func() { h.ends(s, time.Now()) }()
	return f()
}

// disk watches an operation on the disk, which ends when what is returned is called.
func (h *halt) disk(what string) (done func()) {
	s := h.begins(onDisk, what, time.Now())
	return func() { h.ends(s, time.Now()) }
}

// noticed says what is wrong, if something is: of several, what has lasted longest.
func (h *halt) noticed(now time.Time) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var worst *spell
	for s := range h.underway {
		if now.Sub(s.since) >= h.patience(s.kind) && (worst == nil || s.since.Before(worst.since)) {
			worst = s
		}
	}
	if worst == nil {
		return ""
	}
	return fmt.Sprintf("%s has not ended for %v, the longest before it took %v: a process, a disk, or what connects them, hangs",
		worst.what, now.Sub(worst.since).Round(time.Second), h.longest[worst.kind].Round(time.Millisecond))
}

// stoodStill takes a time in which this process did not run at all, as on a virtual machine that is paused, out of the
// spells under way.
func (h *halt) stoodStill(d time.Duration) {
	if d < h.timeout/2 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.underway {
		s.since = s.since.Add(d)
	}
}

// patience is how long a spell may last.
func (h *halt) patience(kind spellKind) time.Duration {
	longest, least := h.longest[kind], timeouts*h.timeout
	if longest == 0 || kind == onDisk {
		least = firstSlow * h.timeout
	}
	return max(least, slower*longest)
}
