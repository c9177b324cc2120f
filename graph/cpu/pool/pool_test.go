package pool

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// TestPoolRunsEachTaskOnce: for any number of tasks and workers, in run after run. The counters are
// plain numbers, so that the race detector notices a task that is handed out twice, and a Run that
// returns too early.
func TestPoolRunsEachTaskOnce(t *testing.T) {
	for workers := 1; workers <= 5; workers++ {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			p := New(workers)
			defer p.Close()
			if p.Workers() != workers {
				t.Errorf("%d workers", p.Workers())
			}
			for _, tasks := range []int{0, 1, 2, workers - 1, workers, workers + 1, 100, 1000} {
				for range 20 {
					done := make([]int, tasks)
					scratch := make([]int, workers) // owned by one worker, like a kernel's workspace
					p.Run(tasks, func(task, worker int) {
						done[task]++
						scratch[worker]++
					})
					sum := 0
					for _, n := range scratch {
						sum += n
					}
					if sum != tasks {
						t.Fatalf("%d of %d tasks ran", sum, tasks)
					}
					for i, n := range done {
						if n != 1 {
							t.Fatalf("task %d of %d ran %d times", i, tasks, n)
						}
					}
				}
			}
		})
	}
}

// meeting returns a function that n tasks call, and that returns when all have.
func meeting(t *testing.T, n int32) func() {
	var arrived atomic.Int32
	all := make(chan struct{})
	return func() {
		if arrived.Add(1) == n {
			close(all)
		}
		select {
		case <-all:
		case <-time.After(10 * time.Second):
			t.Errorf("only %d of %d tasks run at once", arrived.Load(), n)
		}
	}
}

// TestPoolWorksInParallel: tasks that wait for each other complete.
func TestPoolWorksInParallel(t *testing.T) {
	const workers = 4
	p := New(workers)
	defer p.Close()
	for range 10 {
		meet := meeting(t, workers)
		p.Run(workers, func(_, _ int) { meet() })
	}
}

func TestPoolAllocatesNothing(t *testing.T) {
	p := New(3)
	defer p.Close()
	var ran atomic.Int64
	task := func(_, _ int) { ran.Add(1) }
	if n := testing.AllocsPerRun(50, func() { p.Run(8, task) }); n != 0 {
		t.Errorf("%v allocations a run", n)
	}
	if ran.Load() != 51*8 {
		t.Errorf("%d tasks ran", ran.Load())
	}
}

func TestPoolCloses(t *testing.T) {
	p := New(3)
	p.Run(5, func(_, _ int) {})
	p.Close()
	p.Close()
	if !p.Closed() {
		t.Error("is not closed")
	}
}

// TestPoolWakesUp: sleeping workers, and a sleeping caller, are woken up.
func TestPoolWakesUp(t *testing.T) {
	for _, spin := range []bool{true, false} {
		p := start(3, spin)
		defer p.Close()
		for range 20 {
			meet := meeting(t, 3)
			p.Run(3, func(_, worker int) {
				meet()
				if worker != 0 {
					time.Sleep(2 * spinTime) // so that the caller sleeps
				}
			})
			time.Sleep(2 * spinTime) // so that the others sleep
		}
	}
}

// BenchmarkRun measures a kernel with two tiny tasks, right after the previous one and after
// pauses, in the longest of which the workers fall asleep.
func BenchmarkRun(b *testing.B) {
	for _, pause := range []time.Duration{0, 10 * time.Microsecond, time.Millisecond} {
		b.Run(fmt.Sprint("after ", pause), func(b *testing.B) {
			p := New(2)
			defer p.Close()
			var ran atomic.Int64
			var took time.Duration
			for range b.N {
				for start := time.Now(); time.Since(start) < pause; {
				}
				start := time.Now()
				p.Run(2, func(_, _ int) { ran.Add(1) })
				took += time.Since(start)
			}
			b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/run")
		})
	}
}
