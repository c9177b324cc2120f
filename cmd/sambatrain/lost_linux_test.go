package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
)

// launched is several processes of one command under Open MPI. Each runs in a shell that records
// its pid and its exit code, and stays after it has ended: what the others detect is not mpirun's
// doing.
type launched struct {
	dir string
	cmd *exec.Cmd
	out bytes.Buffer
}

const launchScript = `[ "$OMPI_COMM_WORLD_RANK" != "$TEST_LIMITED" ] || ulimit -f 16
"$0" "$@" & echo $! >pid.$OMPI_COMM_WORLD_RANK.new; mv pid.$OMPI_COMM_WORLD_RANK.new pid.$OMPI_COMM_WORLD_RANK
wait $!; echo $? >code.$OMPI_COMM_WORLD_RANK.new; mv code.$OMPI_COMM_WORLD_RANK.new code.$OMPI_COMM_WORLD_RANK
until [ -e over ]; do sleep 0.05; done`

func launch(t *testing.T, dir string, n int, args ...string) *launched {
	t.Helper()
	mpirun, err := exec.LookPath("mpirun")
	if err != nil {
		t.Skip("no mpirun: install Open MPI 4 (openmpi-bin)")
	}
	old, _ := filepath.Glob(filepath.Join(dir, "*.[0-9]"))
	for _, path := range append(old, filepath.Join(dir, "over")) {
		_ = os.Remove(path)
	}
	all := append([]string{"--allow-run-as-root", "--oversubscribe", "-n", strconv.Itoa(n), "sh", "-c", launchScript, os.Args[0]}, args...)
	l := &launched{dir: dir, cmd: exec.Command(mpirun, all...)}
	l.cmd.Dir, l.cmd.Env = dir, append(os.Environ(), asProgram+"=1")
	l.cmd.Stdout, l.cmd.Stderr = &l.out, &l.out
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.finish(t) })
	return l
}

// number waits for a number that a process's shell records.
func (l *launched) number(t *testing.T, what string, rank int) int {
	t.Helper()
	path := filepath.Join(l.dir, fmt.Sprintf("%s.%d", what, rank))
	until(t, 2*time.Minute, path, func() bool { _, err := os.Stat(path); return err == nil })
	n, err := strconv.Atoi(strings.TrimSpace(string(read(t, path))))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// finish lets the shells end.
func (l *launched) finish(t *testing.T) string {
	t.Helper()
	if l.cmd.ProcessState == nil {
		write(t, filepath.Join(l.dir, "over"), "")
		_ = l.cmd.Wait() // the processes' own exit codes are more informative
	}
	return l.out.String()
}

func until(t *testing.T, patience time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestLost kills, or suspends, one of several processes: the others detect this, end with their own
// exit code, and leave good checkpoints, from which the run continues.
func TestLost(t *testing.T) {
	const steps, every = 300, 20
	for _, c := range []struct {
		processes, rank int
		signal          syscall.Signal
		shard, timeout  string
		why             string
	}{
		{2, 1, syscall.SIGKILL, "optimizer", "1m", "process 1 is lost: it ended without a word; go on from the last checkpoint with resume"},
		{2, 0, syscall.SIGKILL, "none", "1m", "process 0 is lost: it ended without a word"},
		{4, 3, syscall.SIGSTOP, "optimizer", "5s", "process 3 is lost: nothing was heard of it for 5s"},
	} {
		t.Run(fmt.Sprintf("%v to %d of %d", c.signal, c.rank, c.processes), func(t *testing.T) {
			dir := workspace(t, steps, every)
			run := filepath.Join(dir, "run")
			l := launch(t, dir, c.processes, "pretrain", "tiny.yaml", "--set", "run.timeout="+c.timeout, "--set", "run.threads=1", "--set", "run.shard="+c.shard)
			until(t, 30*time.Second, "a checkpoint", func() bool {
				list, err := checkpoint.List(run)
				return err == nil && len(list) > 0
			})
			pid := l.number(t, "pid", c.rank)
			if err := syscall.Kill(pid, c.signal); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for rank := range c.processes {
				if rank == c.rank {
					continue
				}
				if code := l.number(t, "code", rank); code != exitLost {
					t.Errorf("process %d ends with %d, want %d", rank, code, exitLost)
				}
			}
			took := time.Since(began)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Error(err)
			}
			if out := l.finish(t); strings.Count(out, c.why) != c.processes-1 {
				t.Errorf("want %d times %q in\n%s", c.processes-1, c.why, out)
			}
			newest, skipped, err := checkpoint.Newest(run)
			if err != nil || len(skipped) > 0 || newest.Step%every != 0 {
				t.Fatalf("newest checkpoint %+v, passed over %v (%v)", newest, skipped, err)
			}
			t.Logf("noticed in %v; the last checkpoint is of step %d of %d", took.Round(10*time.Millisecond), newest.Step, steps)
			l = launch(t, dir, c.processes, "resume", "run")
			for rank := range c.processes {
				if code := l.number(t, "code", rank); code != exitOK {
					t.Errorf("resumed, process %d ends with %d", rank, code)
				}
			}
			out := l.finish(t)
			if n := lastStep(t, run); n != steps || len(unfinished(t, run)) > 0 {
				t.Errorf("resumed, the run ends with step %d, unfinished %q\n%s", n, unfinished(t, run), out)
			}
		})
	}
}

// TestSuspended: a run that is suspended as a whole for longer than run.timeout, as by Slurm or on
// a machine that is paused, continues as if nothing had happened.
func TestSuspended(t *testing.T) {
	dir := workspace(t, 300, 20)
	run := filepath.Join(dir, "run")
	l := launch(t, dir, 2, "pretrain", "tiny.yaml", "--set", "run.timeout=4s", "--set", "run.threads=1")
	until(t, 30*time.Second, "a checkpoint", func() bool {
		list, err := checkpoint.List(run)
		return err == nil && len(list) > 0
	})
	pids := []int{l.number(t, "pid", 0), l.number(t, "pid", 1)}
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		for _, pid := range pids {
			if err := syscall.Kill(pid, signal); err != nil {
				t.Fatal(err)
			}
		}
		if signal == syscall.SIGSTOP {
			time.Sleep(9 * time.Second)
		}
	}
	for rank := range 2 {
		if code := l.number(t, "code", rank); code != exitOK {
			t.Errorf("process %d ends with %d\n%s", rank, code, l.finish(t))
		}
	}
}

// TestKilledTogether kills one of two processes again and again, during saves and between them, and
// compares the final result, bit for bit, with that of an uninterrupted run. Its checkpoints, which
// consist of pieces, are read like those of a single process.
func TestKilledTogether(t *testing.T) {
	const steps, kills = 120, 4
	dir := workspace(t, steps, 2)
	args := func(run string) []string {
		return []string{"pretrain", "tiny.yaml", "--out", run, "--resume", "--set", "run.shard=full"}
	}
	through := launch(t, dir, 2, args("through")...)
	for rank := range 2 {
		if code := through.number(t, "code", rank); code != exitOK {
			t.Fatalf("process %d ends with %d\n%s", rank, code, through.finish(t))
		}
	}
	through.finish(t)
	run, saved, insideSave := filepath.Join(dir, "run"), int64(0), 0
	for i := range kills {
		l := launch(t, dir, 2, args("run")...)
		until(t, 30*time.Second, "a new checkpoint", func() bool {
			list, err := checkpoint.List(run)
			return err == nil && len(list) > 0 && list[len(list)-1].Step > saved
		})
		if i%2 == 0 {
			until(t, 30*time.Second, "a save", func() bool { return len(unfinished(t, run)) > 0 })
		}
		if err := syscall.Kill(l.number(t, "pid", i/2%2), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if code := l.number(t, "code", 1-i/2%2); code != exitLost {
			t.Errorf("kill %d: the other process ends with %d, want %d\n%s", i, code, exitLost, l.finish(t))
		}
		l.finish(t)
		if len(unfinished(t, run)) > 0 {
			insideSave++
		}
		newest, skipped, err := checkpoint.Newest(run)
		if err != nil || len(skipped) > 0 || newest.Step <= saved || newest.Step >= steps {
			t.Fatalf("kill %d: newest checkpoint %+v, passed over %v (%v), before it was of step %d", i, newest, skipped, err, saved)
		}
		saved = newest.Step
	}
	t.Logf("%d kills, %d inside a save; the last checkpoint was of step %d of %d", kills, insideSave, saved, steps)
	l := launch(t, dir, 2, args("run")...)
	for rank := range 2 {
		if code := l.number(t, "code", rank); code != exitOK {
			t.Fatalf("process %d ends with %d\n%s", rank, code, l.finish(t))
		}
	}
	l.finish(t)
	if left := unfinished(t, run); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	final := fmt.Sprintf("checkpoints/step-%08d", steps)
	if e := start(t, dir, "checkpoint", "diff", "through/"+final, "run/"+final); e.code != exitOK {
		t.Errorf("the run that was killed ends otherwise: %+v", e)
	}
	for _, args := range [][]string{
		{"checkpoint", "verify", "run"}, {"generate", "run", "--prompt", "one", "--tokens", "4"},
		{"export", "run", "--format", "safetensors", "--out", "exported"}, {"resume", "run", "--set", "train.steps=122"},
	} {
		if e := start(t, dir, args...); e.code != exitOK {
			t.Errorf("%v: %+v", args, e)
		}
	}
}

// TestFullDiskTogether: if one process can't write its share, all of them end, the first one says
// why, and nothing of that checkpoint is left.
func TestFullDiskTogether(t *testing.T) {
	dir := workspace(t, 100, 2)
	t.Setenv("TEST_LIMITED", "1")
	t.Setenv("OMPI_MCA_btl", "self,tcp") // its shared memory consists of files, too
	l := launch(t, dir, 2, "pretrain", "tiny.yaml", "--set", "run.shard=optimizer")
	for rank := range 2 {
		if code := l.number(t, "code", rank); code != exitFailure {
			t.Errorf("process %d ends with %d, want %d", rank, code, exitFailure)
		}
	}
	out := l.finish(t)
	for _, want := range []string{"sambatrain: process 1: save checkpoint of step 2: write ", "file too large", "sambatrain: process 0 failed: process 1: save checkpoint of step 2: "} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in\n%s", want, out)
		}
	}
	run := filepath.Join(dir, "run")
	if list, err := checkpoint.List(run); err != nil || len(list) > 0 || len(unfinished(t, run)) > 0 {
		t.Errorf("checkpoints %v (%v), unfinished %q", list, err, unfinished(t, run))
	}
}

// TestSignalledTogether: a signal to any process stops all of them after the same step, saved.
func TestSignalledTogether(t *testing.T) {
	dir := workspace(t, 5000, 10000)
	run := filepath.Join(dir, "run")
	args := []string{"pretrain", "tiny.yaml", "--set", "run.threads=1", "--set", "run.shard=optimizer"}
	last := int64(0)
	for i, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1} {
		l := launch(t, dir, 4, args...)
		until(t, 30*time.Second, "a step", func() bool {
			_, err := os.Stat(filepath.Join(run, "metrics.jsonl"))
			return err == nil && int64(lastStep(t, run)) > last
		})
		if err := syscall.Kill(l.number(t, "pid", 3-i), signal); err != nil {
			t.Fatal(err)
		}
		for rank := range 4 {
			if code := l.number(t, "code", rank); code != exitStopped {
				t.Errorf("%v: process %d ends with %d, want %d", signal, rank, code, exitStopped)
			}
		}
		newest, _, err := checkpoint.Newest(run)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("stopped after step %d and saved", newest.Step)
		if out := l.finish(t); newest.Step <= last || strings.Count(out, want) != 4 {
			t.Errorf("%v: want 4 times %q in\n%s", signal, want, out)
		}
		last, args = newest.Step, []string{"resume", "run"}
	}
}
