package dist

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"
)

// Spawner starts the processes of one machine, and stays until all have ended.
type Spawner struct {
	// Command makes a process. Its place is added to its environment.
	Command func() *exec.Cmd
	// Signals are forwarded to all.
	Signals <-chan os.Signal
	// Stopped is the exit code of a process when all have agreed to stop: the others are left to
	// save.
	Stopped int
	// Lost is the exit code for a process that a signal killed.
	Lost int
	// Grace is how long the others may take to end when one has failed otherwise. Then they are
	// killed, because they wait for it inside a library that does not give up.
	Grace time.Duration
}

// ChildError is the first process that did not end normally.
type ChildError struct {
	Rank, Code int
	State      string
}

func (e *ChildError) Error() string { return fmt.Sprintf("process %d ended: %s", e.Rank, e.State) }

// spawned marks the processes that a Spawner starts: their place is in SAMBATRAIN_*, whatever the
// flags say, which they share with the process that started them.
const spawned = "SAMBATRAIN_SPAWNED"

// Run starts t.Spawn processes, the first with t's place. It returns a *ChildError if one of them
// failed or stopped.
func (s *Spawner) Run(t Topology) error {
	if err := t.findMaster(); err != nil {
		return err
	}
	if t.Size == t.Spawn && t.Secret == "" {
		t.Secret = rand.Text()
	}
	// The kernel ends children together with the thread that started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	running := map[int]*exec.Cmd{}
	ended := make(chan int)
	var failed error
	for i := range t.Spawn {
		c := s.Command()
		c.Env = append(c.Environ(), t.child(i)...)
		setAttributes(c)
		if failed = c.Start(); failed != nil {
			kill(running)
			break
		}
		running[i] = c
		go func() {
			_ = c.Wait() // its state says everything
			ended <- i
		}()
	}
	var patience <-chan time.Time
	for len(running) > 0 {
		select {
		case sig := <-s.Signals:
			for _, c := range running {
				_ = c.Process.Signal(sig) // it may have ended
			}
		case <-patience:
			kill(running)
		case i := <-ended:
			state := running[i].ProcessState
			delete(running, i)
			if state.Success() {
				continue
			}
			if failed == nil {
				code := state.ExitCode()
				if code < 0 {
					code = s.Lost
				}
				failed = &ChildError{Rank: t.Rank + i, Code: code, State: state.String()}
			}
			if state.ExitCode() != s.Stopped && patience == nil {
				patience = time.After(s.Grace)
			}
		}
	}
	return failed
}

func kill(running map[int]*exec.Cmd) {
	for _, c := range running {
		_ = c.Process.Kill() // it may have ended
	}
}

// findMaster picks a free port if this machine has all processes.
func (t *Topology) findMaster() error {
	switch {
	case t.Master != "":
		return nil
	case t.Size > t.Spawn:
		return fmt.Errorf("%s: nothing says where process 0 listens: set SAMBATRAIN_MASTER=host:port, the same on all nodes", t.Source)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	t.Master = l.Addr().String()
	return l.Close()
}

// child returns the place of the i-th process here, as variables.
func (t *Topology) child(i int) []string {
	list := []string{
		"SAMBATRAIN_RANK=" + strconv.Itoa(t.Rank+i), "SAMBATRAIN_WORLD_SIZE=" + strconv.Itoa(t.Size),
		"SAMBATRAIN_LOCAL_RANK=" + strconv.Itoa(i), "SAMBATRAIN_MASTER=" + t.Master, spawned + "=1",
	}
	if t.Secret != "" {
		list = append(list, secretVariable+"="+t.Secret)
	}
	return list
}

// node returns the place of a machine that starts f.PerNode processes: the launcher counts
// machines.
func (f Flags) node(e Environment, gpus int) (Topology, error) {
	each, err := strconv.Atoi(f.PerNode)
	switch {
	case f.PerNode == "auto" && gpus == 0:
		return Topology{}, flagError("--nproc-per-node auto: no GPU is in sight; start CPU processes with mpirun -n N")
	case f.PerNode == "auto":
		each = gpus
	case err != nil || each < 1:
		return Topology{}, flagError("--nproc-per-node: must be auto or at least 1, is %q", f.PerNode)
	}
	f.PerNode = ""
	t, err := Detect(f, func(name string) (string, bool) {
		if name == "PET_NPROC_PER_NODE" {
			return "", false // the flag takes precedence
		}
		return e(name)
	}, 0)
	if err == nil && t.LocalRank > 0 {
		err = flagError("--nproc-per-node: %s has started several processes on this machine already; start one per machine, or leave the flag out", t.Source)
	}
	return t.times(each), err
}
