package cpu

import (
	"sync"
	"sync/atomic"
)

// pool is a fixed set of workers. The goroutine that calls Run is worker 0.
type pool struct {
	workers int
	wake    []chan struct{} // one a helper, so that none takes another's turn
	done    sync.WaitGroup
	task    func(task, worker int)
	tasks   int64
	next    atomic.Int64
	closed  bool
	trace   *trace // nil but in RunTraced
}

func newPool(workers int) *pool {
	p := &pool{workers: workers}
	for w := 1; w < workers; w++ {
		wake := make(chan struct{}, 1)
		p.wake = append(p.wake, wake)
		go func() {
			for range wake {
				since := p.trace.now()
				p.work(w)
				p.trace.busy(w, since)
				p.done.Done()
			}
		}()
	}
	return p
}

func (p *pool) Workers() int { return p.workers }

// Run implements graph.Pool. Tasks are handed out one at a time, so workers that
// meet short tasks do more of them.
func (p *pool) Run(tasks int, task func(task, worker int)) {
	if tasks <= 1 || p.workers == 1 {
		for i := range tasks {
			task(i, 0)
		}
		return
	}
	p.task, p.tasks = task, int64(tasks)
	p.next.Store(0)
	helpers := p.wake[:min(tasks-1, len(p.wake))]
	p.done.Add(len(helpers))
	for _, wake := range helpers {
		wake <- struct{}{}
	}
	p.work(0)
	p.trace.pause()
	p.done.Wait()
	p.trace.resume()
	p.task = nil
}

func (p *pool) work(worker int) {
	for {
		i := p.next.Add(1) - 1
		if i >= p.tasks {
			return
		}
		p.task(int(i), worker)
	}
}

func (p *pool) close() {
	for _, wake := range p.wake {
		close(wake)
	}
	p.wake, p.closed = nil, true
}
