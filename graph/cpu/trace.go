package cpu

import (
	"slices"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu/pool"
)

// workers is the pool and, during RunTraced, the trace of the run.
type workers struct {
	*pool.Pool
	trace *trace // nil except in RunTraced
}

// Run implements graph.Pool.
func (w *workers) Run(tasks int, task func(task, worker int)) {
	t := w.trace
	if t == nil {
		w.Pool.Run(tasks, task)
		return
	}
	t.pause()
	w.Pool.Run(tasks, func(i, worker int) {
		since := t.now()
		task(i, worker)
		t.busy(worker, since)
	})
	t.resume()
}

// trace records when the workers of one run were busy.
type trace struct {
	start time.Time
	step  int
	spans [][]graph.Span // by worker, so that workers need no lock
	since time.Duration  // worker 0 has been busy since, outside of tasks
}

// handover is the longest gap between two tasks of a worker that counts as work.
const handover = time.Microsecond

// now is the time since the start of the run.
func (t *trace) now() time.Duration { return time.Since(t.start) }

// busy records that a worker was busy from since to now. Consecutive tasks of one step are one
// span.
func (t *trace) busy(worker int, since time.Duration) {
	list := t.spans[worker]
	if n := len(list) - 1; n >= 0 && list[n].Step == t.step && since-list[n].End < handover {
		list[n].End = t.now()
		return
	}
	t.spans[worker] = append(list, graph.Span{Step: t.step, Worker: worker, Start: since, End: t.now()})
}

// pause: until resume, worker 0 does tasks like the others.
func (t *trace) pause() { t.busy(0, t.since) }

func (t *trace) resume() { t.since = t.now() }

// RunTraced implements graph.Tracer. Worker 0 also does the serial parts of kernels.
func (p *Program) RunTraced() ([]graph.Span, error) {
	if err := p.ready(); err != nil {
		return nil, err
	}
	t := &trace{start: time.Now(), spans: make([][]graph.Span, p.pool.Workers())}
	p.pool.trace = t
	defer func() { p.pool.trace = nil }()
	for i, k := range p.kernels {
		t.step = i
		t.resume()
		k()
		t.pause()
	}
	return slices.Concat(t.spans...), p.ended()
}
