package dist

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// scripted is a connection whose reads follow a script.
type scripted struct {
	net.Conn
	reads []func(deadline time.Time) (int, error)
	until time.Time
}

func (s *scripted) SetReadDeadline(t time.Time) error { s.until = t; return nil }

func (s *scripted) Read(p []byte) (int, error) {
	next := s.reads[0]
	s.reads = s.reads[1:]
	return next(s.until)
}

// TestStandstill: a machine that stands still for longer than the timeout hears what arrives
// afterwards; real silence lasts as long as the timeout.
func TestStandstill(t *testing.T) {
	const timeout = 100 * time.Millisecond
	silent := func(until time.Time) (int, error) { time.Sleep(time.Until(until)); return 0, os.ErrDeadlineExceeded }
	still := func(until time.Time) (int, error) {
		time.Sleep(time.Until(until) + 3*timeout)
		return 0, os.ErrDeadlineExceeded
	}
	beat := func(time.Time) (int, error) { return 1, nil }
	gone := func(time.Time) (int, error) { return 0, net.ErrClosed }
	type reads = []func(time.Time) (int, error)
	for name, c := range map[string]struct {
		reads reads
		want  error
		least time.Duration
	}{
		"a beat":                       {reads{beat}, nil, 0},
		"a late beat":                  {reads{silent, silent, silent, silent, beat}, nil, 0},
		"a standstill, then a beat":    {reads{still, beat}, nil, 3 * timeout},
		"silence":                      {reads{silent, silent, silent, silent, silent}, os.ErrDeadlineExceeded, timeout - time.Millisecond},
		"a standstill, then silence":   {reads{still, silent, silent, silent, silent}, os.ErrDeadlineExceeded, 3*timeout + timeout/2},
		"an end":                       {reads{gone}, net.ErrClosed, 0},
		"an end after some of silence": {reads{silent, silent, gone}, net.ErrClosed, 0},
	} {
		s := &scripted{reads: c.reads}
		began := time.Now()
		n, err := hearing{s, s, timeout}.Read(make([]byte, 1))
		if !errors.Is(err, c.want) || (n == 1) != (c.want == nil) || len(s.reads) > 0 || time.Since(began) < c.least {
			t.Errorf("%s: %d bytes, %v after %v, %d reads left", name, n, err, time.Since(began), len(s.reads))
		}
	}
}
