package simd

// Pool runs tasks on workers. The executor implements it, for kernels that are too large for one
// core.
type Pool interface {
	// Workers returns the number of workers, at least 1.
	Workers() int
	// Run calls task once for every task in [0, tasks), in any order, on any worker in [0, Workers()),
	// and returns when all calls have returned. No two calls run at once on the same worker.
	Run(tasks int, task func(task, worker int))
}

// Serial is a Pool with one worker that runs tasks in order on the caller's goroutine.
type Serial struct{}

// Workers returns 1.
func (Serial) Workers() int { return 1 }

// Run calls task(0, 0), task(1, 0) and so on.
func (Serial) Run(tasks int, task func(task, worker int)) {
	for t := range tasks {
		task(t, 0)
	}
}
