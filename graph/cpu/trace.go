package cpu

import (
	"slices"
	"time"

	"github.com/sambatrain/sambatrain/graph"
)

// trace records when the workers of one run were busy. The pool calls its methods
// whether there is one or not.
type trace struct {
	start time.Time
	step  int
	spans [][]graph.Span // by worker, so that workers need no lock
	since time.Duration  // worker 0 is busy since
}

// now is the time since the run began.
func (t *trace) now() time.Duration {
	if t == nil {
		return 0
	}
	return time.Since(t.start)
}

// busy records that a worker was at work since then.
func (t *trace) busy(worker int, since time.Duration) {
	if t != nil {
		t.spans[worker] = append(t.spans[worker], graph.Span{Step: t.step, Worker: worker, Start: since, End: t.now()})
	}
}

// pause: worker 0 waits for the others until resume.
func (t *trace) pause() {
	if t != nil {
		t.busy(0, t.since)
	}
}

func (t *trace) resume() {
	if t != nil {
		t.since = t.now()
	}
}

// RunTraced implements graph.Tracer. Worker 0 also does what a kernel does alone.
func (p *Program) RunTraced() ([]graph.Span, error) {
	if p.pool.closed {
		return nil, errClosed
	}
	t := &trace{start: time.Now(), spans: make([][]graph.Span, p.pool.workers)}
	p.pool.trace = t
	defer func() { p.pool.trace = nil }()
	for i, k := range p.kernels {
		t.step = i
		t.resume()
		k()
		t.pause()
	}
	return slices.Concat(t.spans...), nil
}
