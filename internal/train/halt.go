package train

import (
	"fmt"
	"sync"
	"time"
)

// halt detects that a run no longer makes progress: otherwise a process that runs but gets nowhere,
// a network that transfers nothing, or a disk that does not answer would be waited for forever. It
// watches spells: activities that a run repeats and that take about the same time each time.
type halt struct {
	timeout time.Duration

	mu       sync.Mutex
	looked   time.Time // the last call of look
	underway map[*spell]bool
	longest  [spellKinds]time.Duration // of the spells that have ended
}

// spell is one occurrence of a watched activity.
type spell struct {
	kind  spellKind
	what  string
	since time.Time
}

// spellKind is the kind of activity.
type spellKind int

const (
	stepping   spellKind = iota // a step, including the wait for its rows
	validating                  // one pass of a validation, or the sum over the processes
	onDisk                      // one disk operation, or a copy from the device
	spellKinds
)

// A spell may take several times as long as the longest one before it. The timeout must pass twice:
// after the first one a process that died is recognized by its silence, which is more informative
// than a halt. The first spell may take as long as loading kernels and connecting a library. A disk
// operation always may, since a sync takes as long as everything that was written before.
const (
	slower    = 10
	timeouts  = 2
	firstSlow = 10
)

// lookEvery is how often look is called.
const lookEvery = 500 * time.Millisecond

func (h *halt) begins(kind spellKind, what string, now time.Time) *spell {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stoodStill(now)
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
	h.stoodStill(now)
	h.longest[s.kind] = max(h.longest[s.kind], now.Sub(s.since))
	delete(h.underway, s)
}

// during watches f.
func (h *halt) during(kind spellKind, what string, f func() error) error {
	s := h.begins(kind, what, time.Now())
	defer func() { h.ends(s, time.Now()) }()
	return f()
}

// disk watches a disk operation, which ends when the returned function is called.
func (h *halt) disk(what string) (done func()) {
	s := h.begins(onDisk, what, time.Now())
	return func() { h.ends(s, time.Now()) }
}

// look is noticed for a caller that looks regularly, every lookEvery.
func (h *halt) look(now time.Time) string {
	h.mu.Lock()
	h.stoodStill(now)
	h.looked = now
	h.mu.Unlock()
	return h.noticed(now)
}

// noticed says what is wrong, if anything: if several spells are too long, it names the longest.
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

// stoodStill excludes from the current spells the time in which this process did not run at all, for
// example on a paused virtual machine: look was not called for much longer than lookEvery.
func (h *halt) stoodStill(now time.Time) {
	still := now.Sub(h.looked) - lookEvery
	if h.looked.IsZero() || still < h.timeout/2 {
		return
	}
	h.looked = now
	for s := range h.underway {
		s.since = s.since.Add(still)
	}
}

// patience returns how long a spell may take.
func (h *halt) patience(kind spellKind) time.Duration {
	longest, least := h.longest[kind], timeouts*h.timeout
	if longest == 0 || kind == onDisk {
		least = firstSlow * h.timeout
	}
	return max(least, slower*longest)
}
