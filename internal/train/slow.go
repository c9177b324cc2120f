package train

import (
	"log/slog"
	"time"
)

// Work that shows nothing, such as reading many files, is reported after slowAfter, and then every
// slowEvery.
const (
	slowAfter = 10 * time.Second
	slowEvery = time.Minute
)

// slow calls slow in the first process; the others only log warnings.
func (s *session) slow(what string) (done func()) {
	if !s.first() {
		return func() {}
	}
	return slow(s.options.Log, what)
}

// slow logs, until done is called, that something is still going on.
func slow(log *slog.Logger, what string) (done func()) {
	started, stop := time.Now(), make(chan struct{})
	go func() {
		for wait := slowAfter; ; wait = slowEvery {
			select {
			case <-stop:
				return
			case <-time.After(wait):
				log.Info(what, "since", time.Since(started).Round(time.Second))
			}
		}
	}()
	return func() { close(stop) }
}
