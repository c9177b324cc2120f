package cpu

import (
	"fmt"
	"sync/atomic"
	"testing"
	"unsafe"
)

// TestPoolRunsEachTaskOnce: for any number of tasks and workers, run after run. The
// counters are plain numbers, so that the race detector sees a task that is handed
// out twice, and a Run that returns too early.
func TestPoolRunsEachTaskOnce(t *testing.T) {
	for workers := 1; workers <= 5; workers++ {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			p := newPool(workers)
			defer p.close()
			if p.Workers() != workers {
				t.Errorf("%d workers", p.Workers())
			}
			for _, tasks := range []int{0, 1, 2, workers - 1, workers, workers + 1, 100, 1000} {
				for range 20 {
					done := make([]int, tasks)
					scratch := make([]int, workers) // a worker's own, as a kernel's workspace
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

// TestPoolWorksInParallel: tasks that wait for each other end.
func TestPoolWorksInParallel(t *testing.T) {
	const workers = 4
	p := newPool(workers)
	defer p.close()
	for range 10 {
		var arrived atomic.Int32
		all := make(chan struct{})
		p.Run(workers, func(_, _ int) {
			if arrived.Add(1) == workers {
				close(all)
			}
			<-all
		})
	}
}

func TestPoolAllocatesNothing(t *testing.T) {
	p := newPool(3)
	defer p.close()
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
	p := newPool(3)
	p.Run(5, func(_, _ int) {})
	p.close()
	p.close()
	if !p.closed {
		t.Error("is not closed")
	}
}

func TestAligned(t *testing.T) {
	for n := range 40 {
		s := aligned(n)
		if len(s) != n || cap(s) != n {
			t.Errorf("%d elements: length %d, capacity %d", n, len(s), cap(s))
		}
		if n > 0 && uintptr(unsafe.Pointer(&s[0]))%64 != 0 {
			t.Errorf("%d elements start at %#x", n, uintptr(unsafe.Pointer(&s[0])))
		}
	}
}
