// Package pool is a fixed set of workers that share the tasks of one kernel at a time. A training step is
// hundreds of short kernels, so the time to start the workers matters: waking a sleeping thread takes
// about 100 us on some machines, as long as a kernel. Idle workers therefore spin for a while.
package pool

import (
	"runtime"
	"sync/atomic"
	"time"
)

// spinTime is how long a worker looks for work before it sleeps: about twice the cost of waking it
// up.
const spinTime = 200 * time.Microsecond

// Pool is a fixed set of workers. The goroutine that calls Run is worker 0.
type Pool struct {
	workers int
	helpers []helper
	spin    bool // each worker has a core
	closed  bool

	task  func(task, worker int)
	tasks int // number of tasks of the run

	// ticket has the number of the run in its high half and the number of unclaimed tasks in its
	// low half.
	ticket atomic.Uint64
	_      [56]byte // each counter has a cache line of its own
	// left is the number of tasks that are not done yet.
	left atomic.Int64
	_    [56]byte

	sleeping atomic.Bool   // the caller of Run waits on wake
	wake     chan struct{} // the last task is done
}

// helper is a worker other than the caller of Run.
type helper struct {
	sleeping atomic.Bool   // waits on wake
	wake     chan struct{} // there is work; closed when the pool is closed
	_        [48]byte
}

// New starts a pool with this many workers, at least 1.
func New(workers int) *Pool { return start(workers, workers <= runtime.GOMAXPROCS(0)) }

func start(workers int, spin bool) *Pool {
	p := &Pool{workers: workers, helpers: make([]helper, workers-1), spin: spin, wake: make(chan struct{}, 1)}
	for i := range p.helpers {
		h := &p.helpers[i]
		h.wake = make(chan struct{}, 1)
		go p.help(h, i+1)
	}
	return p
}

// Workers returns the number of workers.
func (p *Pool) Workers() int { return p.workers }

// Run calls task once for every task in [0, tasks) and returns when all calls have returned. Tasks
// are handed out one at a time and in order, so workers with short tasks do more of them. Only one
// goroutine at a time may call it, and tasks may not. It allocates nothing.
func (p *Pool) Run(tasks int, task func(task, worker int)) {
	if tasks <= 1 || p.workers == 1 {
		for i := range tasks {
			task(i, 0)
		}
		return
	}
	p.task, p.tasks = task, tasks
	p.left.Store(int64(tasks))
	p.ticket.Store((p.ticket.Load()>>32+1)<<32 | uint64(tasks))
	for i := range p.helpers[:min(tasks-1, len(p.helpers))] {
		if h := &p.helpers[i]; h.sleeping.CompareAndSwap(true, false) {
			h.wake <- struct{}{}
		}
	}
	p.work(0)
	p.await()
	p.task = nil
}

// work does tasks until all are claimed. The fields of a run are read only while holding a task:
// the run, and with it the validity of these fields, lasts until that task is done.
func (p *Pool) work(worker int) {
	for {
		ticket := p.ticket.Load()
		free := int(uint32(ticket))
		if free == 0 {
			return
		}
		if !p.ticket.CompareAndSwap(ticket, ticket-1) {
			continue
		}
		p.task(p.tasks-free, worker)
		if p.left.Add(-1) == 0 && p.sleeping.CompareAndSwap(true, false) {
			p.wake <- struct{}{}
		}
	}
}

// await returns when no task is left.
func (p *Pool) await() {
	done := func() bool { return p.left.Load() == 0 }
	if p.soon(done) {
		return
	}
	p.sleeping.Store(true)
	if done() && p.sleeping.CompareAndSwap(true, false) {
		return // the worker of the last task saw that nobody was asleep
	}
	<-p.wake
}

// help is the loop of a helper.
func (p *Pool) help(h *helper, worker int) {
	work := func() bool { return uint32(p.ticket.Load()) != 0 }
	for {
		p.work(worker)
		if p.soon(work) {
			continue
		}
		h.sleeping.Store(true)
		if work() && h.sleeping.CompareAndSwap(true, false) {
			continue // the caller of Run saw that nobody was asleep
		}
		if _, open := <-h.wake; !open {
			return
		}
	}
}

// soon reports whether a condition becomes true within spinTime.
func (p *Pool) soon(comes func() bool) bool {
	if !p.spin {
		return false
	}
	for start := time.Now(); time.Since(start) < spinTime; {
		for range 16 {
			if comes() {
				return true
			}
			pause()
		}
	}
	return false
}

// Close stops the workers. Run must not be called afterwards.
func (p *Pool) Close() {
	if p.closed {
		return
	}
	p.closed = true
	for i := range p.helpers {
		close(p.helpers[i].wake)
	}
}

// Closed reports whether Close was called.
func (p *Pool) Closed() bool { return p.closed }
