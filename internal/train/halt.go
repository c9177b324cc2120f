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

	mu     sync.Mutex
	spells [spellKinds]spell
}

// spell is one kind of what is watched.
type spell struct {
	what    string
	since   time.Time // when the one began that is being done; zero: none is
	longest time.Duration
}

// spellKind is what a spell is of.
type spellKind int

const (
	stepping   spellKind = iota // a step, with its wait for rows
	validating                  // one pass of a validation, or the sum over the processes
	saving                      // one operation on the disk, or a copy from the device
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

func (h *halt) begins(kind spellKind, what string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spells[kind].what, h.spells[kind].since = what, now
}

func (h *halt) ends(kind spellKind, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.spells[kind]
	s.longest = max(s.longest, now.Sub(s.since))
	s.since = time.Time{}
}

// during watches f.
func (h *halt) during(kind spellKind, what string, f func() error) error {
	h.begins(kind, what, time.Now())
	defer func() { h.ends(kind, time.Now()) }()
	return f()
}

// disk watches an operation on the disk, which ends when what is returned is called.
func (h *halt) disk(what string) (done func()) {
	h.begins(saving, what, time.Now())
	return func() { h.ends(saving, time.Now()) }
}

// noticed says what is wrong, if something is.
func (h *halt) noticed(now time.Time) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for kind, s := range h.spells {
		patience := timeouts * h.timeout
		if s.longest == 0 || spellKind(kind) == saving {
			patience = firstSlow * h.timeout
		}
		patience = max(patience, slower*s.longest)
		if took := now.Sub(s.since); !s.since.IsZero() && took >= patience {
			return fmt.Sprintf("%s has not ended for %v, the longest before it took %v: a process, a disk, or what connects them, hangs", s.what, took.Round(time.Second), s.longest.Round(time.Millisecond))
		}
	}
	return ""
}
