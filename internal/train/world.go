package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/recipes"
)

// meeting is how long the processes of a run wait for each other at the start.
const meeting = 5 * time.Minute

// joinProcesses connects the processes of a run: NCCL moves the data of GPUs, Open MPI that of
// CPUs, and a separate line tells which of them are still alive.
func (s *session) joinProcesses(ctx context.Context) (err error) {
	place, timeout := s.options.Place, time.Duration(s.recipe.Run.Timeout)
	if place.Single() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, meeting)
	defer cancel()
	// A process that starts a run must not join those that continue one.
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\nresumed: %v\nsecret: %s\n", s.resolved, s.resumed, place.Secret))
	token := hex.EncodeToString(sum[:])
	gpu, ok := s.dev.(*cuda.Device)
	if !ok {
		if s.comm, err = dist.NewMPI(); err != nil {
			return err
		}
		if c := s.comm; c.Rank() != place.Rank || c.Size() != place.Size {
			return fmt.Errorf("%v; Open MPI, which connects CPU processes, says rank %d of %d: start CPU processes with `mpirun -n %d sambatrain ...`, or with srun; torchrun and --nproc-per-node start those of GPUs", place, c.Rank(), c.Size(), place.Size)
		}
		if s.line, err = dist.MeetOver(ctx, s.comm, place, token, timeout); err == nil {
			go s.watch()
		}
		return err
	}
	if s.line, err = dist.Meet(ctx, place, token, timeout); err != nil {
		return err
	}
	go s.watch()
	return gpu.Within(func() error {
		c, err := dist.NewNCCL(place, s.line)
		if err == nil {
			s.comm = c
		}
		return err
	})
}

// watch ends this process when another one is lost: the library that moves the data might wait for
// that one forever. grace leaves time for an error of the library to end it instead.
func (s *session) watch() {
	const grace = time.Second
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	s.halt.look(time.Now())
	for lost := false; !lost; {
		select {
		case <-s.line.Lost():
			lost = true
		case <-s.over:
			return
		case <-tick.C:
			if why := s.halt.look(time.Now()); why != "" {
				s.line.GiveUp(why)
			}
		}
	}
	select {
	case <-time.After(grace):
		s.options.Abort(s.lostTo())
	case <-s.over:
	}
}

// leave closes the line to the other processes: by agreement if all come to their end, and
// otherwise with the reason. It returns the error that the session ends with: if another process is
// the cause of err, it says so; for a full disk or quota it says what to do.
func (s *session) leave(err error) error {
	if (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && s.step > 0 {
		err = fmt.Errorf("%w; free some space and continue with: %s", err, s.resumeCommand())
	}
	if s.line == nil {
		return err
	}
	close(s.over)
	if s.ended {
		s.line.Close()
		return err
	}
	select {
	case <-s.line.Lost():
		err = s.lostTo()
		s.line.Close()
	case <-time.After(500 * time.Millisecond): // the library's error arrives before the notice
		var stopped *Stopped
		s.line.Fail(firstLine(err), errors.As(err, &stopped))
	}
	return err
}

// lostTo says what another process has done to this one: made it stop, failed, or died.
func (s *session) lostTo() error {
	err := s.line.Err()
	var failed *dist.Failed
	if errors.As(err, &failed) && failed.Stopped {
		return s.stopped(-1)
	}
	return err
}

func firstLine(err error) string {
	if err == nil {
		return "it ended"
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// checkShares rejects a batch that is not divisible among the processes.
func checkShares(r *recipes.Recipe, processes int) error {
	share := r.Train.BatchSize / processes
	switch {
	case r.Train.BatchSize%processes != 0:
		return fmt.Errorf("train.batch_size: %d rows are not a multiple of %d processes", r.Train.BatchSize, processes)
	case share%min(r.Train.MicroBatch, share) != 0:
		return fmt.Errorf("train.micro_batch: %d does not divide the %d rows that each of %d processes has", r.Train.MicroBatch, share, processes)
	}
	return nil
}

// processes returns the number of processes that train together.
func (s *session) processes() int { return max(s.options.Place.Size, 1) }

func (s *session) alone() bool { return s.processes() == 1 }

// config returns the configuration of this process's engine.
func (s *session) config() (c EngineConfig, err error) {
	c = ConfigAmong(s.recipe, s.comm)
	c.free, err = s.leastFree()
	return c, err
}

// leastFree returns the free memory of the process that has least of it. All processes plan with the
// same number: what a plan recomputes determines which parameters it gathers when, and processes
// must do that together.
func (s *session) leastFree() (int64, error) {
	free, err := s.dev.FreeMemory()
	if err != nil || s.alone() {
		return free, err
	}
	own := room{Free: free}
	if _, ok := s.dev.(*cpu.Device); ok {
		if own.Shared, err = os.Hostname(); err != nil {
			return 0, err
		}
	}
	text, err := json.Marshal(own)
	if err != nil {
		return 0, err
	}
	texts, err := s.line.Gather(text)
	if err != nil {
		return 0, err
	}
	var all []room // in process 0
	for _, text := range texts {
		r, err := readRoom(text)
		if err != nil {
			return 0, err
		}
		all = append(all, r)
	}
	if text, err = json.Marshal(room{Free: leastRoom(all)}); err != nil {
		return 0, err
	}
	if text, err = s.line.Share(text); err != nil {
		return 0, err
	}
	least, err := readRoom(text)
	return least.Free, err
}

// room is the free memory of a process. Processes with the same machine as Shared see the same
// memory, each of them all of it.
type room struct {
	Free   int64  `json:"free"`
	Shared string `json:"shared,omitempty"`
}

func readRoom(text []byte) (r room, err error) {
	if err = json.Unmarshal(text, &r); err != nil {
		err = fmt.Errorf("the amount of memory reported by another process is invalid: %w", err)
	}
	return r, err
}

// leastRoom returns what each of the processes can have.
func leastRoom(all []room) int64 {
	least := int64(math.MaxInt64)
	for _, r := range all {
		sharers := int64(1)
		if r.Shared != "" {
			sharers = 0
			for _, other := range all {
				if other.Shared == r.Shared {
					sharers++
				}
			}
		}
		least = min(least, r.Free/sharers)
	}
	return least
}

// ConfigAmong is ConfigOf for one of the processes that comm connects; nil means a single process.
func ConfigAmong(r *recipes.Recipe, comm graph.Comm) EngineConfig {
	c := ConfigOf(r)
	c.Comm = comm
	share := r.Train.BatchSize / c.processes()
	c.MicroBatch = min(c.MicroBatch, share)
	c.Accumulate = c.MicroBatch < share
	if comm != nil {
		c.Shard = r.Run.Shard
		c.ReduceBFloat16 = r.Run.ReduceDType == recipes.BFloat16
	}
	return c
}

// exchange sums over the processes what a step's record says about its tokens, and reports whether
// any of them was asked to stop: all stop after the same step.
func (s *session) exchange(ctx context.Context, bytes int64, counted int) (allBytes int64, allCounted int, stopping bool, err error) {
	if s.alone() {
		return bytes, counted, false, nil
	}
	x := [exchanged]float64{float64(bytes), float64(counted)}
	if ctx.Err() != nil {
		x[2] = 1
	}
	err = s.engine.sums(&x)
	return int64(x[0]), int(x[1]), x[2] > 0, err
}

// first reports whether this process writes the run's files and speaks for the run.
func (s *session) first() bool { return s.options.Place.Rank == 0 }

// together does something that only the first process does, and waits for it in the others. All of
// them fail if the first does.
func (s *session) together(what string, f func() error) error {
	var err error
	if s.first() {
		err = f()
	}
	failed := 0.0
	if err != nil {
		failed = 1
	}
	n, sumErr := s.engine.Sum(failed)
	switch {
	case err != nil || sumErr != nil:
		return errors.Join(err, sumErr)
	case n > 0:
		return fmt.Errorf("process 0 failed to %s; its own message says why", what)
	}
	return nil
}

// agree fails if n is not the same in all processes.
func (s *session) agree(what string, n int64) error {
	sum, err := s.engine.Sum(float64(n))
	if err != nil {
		return err
	}
	if sum != float64(n)*float64(s.processes()) {
		return fmt.Errorf("the processes don't agree on %s, which is %d here; do they all see the same run directory?", what, n)
	}
	return nil
}
