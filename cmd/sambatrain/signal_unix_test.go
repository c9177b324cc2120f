//go:build unix

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/internal/runlog"
)

// TestKilled kills a run again and again, at any moment and during saves, resumes it each time, and
// compares its final result with that of an uninterrupted run. Its guard skips steps, the same ones
// in both.
func TestKilled(t *testing.T) {
	const steps, every, kills = 500, 2, 50
	dir := workspace(t, steps, every)
	guard := []string{"--set", "train.guard.max_z=2.5", "--set", "train.guard.window=8", "--set", "train.guard.abort_after=0"}
	began := time.Now()
	want := reference(t, dir, guard...)
	whole := time.Since(began)
	began = time.Now()
	if e := start(t, dir, "resume", "ref"); e.code != exitOK {
		t.Fatalf("%+v", e)
	}
	startup := time.Since(began)
	if n := skips(t, filepath.Join(dir, "ref")); n < 10 {
		t.Errorf("the guard left out %d steps only", n)
	}
	run := filepath.Join(dir, "run")
	rng := rand.New(rand.NewPCG(2024, 6))

	// Until its config exists, a folder contains no run that could be resumed.
	args := func(set ...string) []string {
		if _, err := os.Stat(filepath.Join(run, "config.resolved.yaml")); errors.Is(err, fs.ErrNotExist) {
			return append([]string{"pretrain", "tiny.yaml"}, guard...)
		}
		return append([]string{"resume", "run"}, set...)
	}
	killed, insideSave, saved := 0, 0, int64(0)
	for attempt := 0; killed < kills && attempt < 10*kills; attempt++ {
		c := program(dir, nil, args("--set", fmt.Sprintf("run.threads=%d", 1+attempt%2))...)
		stderr, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		log := bufio.NewScanner(stderr)
		var text []string
		switch attempt % 3 {
		case 0: // at any time, including startup; the time doesn't affect results
			time.AfterFunc(time.Duration(rng.Int64N(int64(startup+whole/20))), func() { c.Process.Kill() })
		case 1: // after some lines of its log
			for n := 1 + rng.IntN(20); n > 0 && log.Scan(); n-- {
				text = append(text, log.Text())
			}
			c.Process.Kill()
		case 2: // while it saves
			go killInSave(c, run, 1+rng.IntN(5))
		}
		for log.Scan() {
			text = append(text, log.Text())
		}
		if err := c.Wait(); err == nil {
			// The run ended before it was killed: the next one starts over.
			mustEqual(t, outcomeOf(t, run), want)
			if err := os.RemoveAll(run); err != nil {
				t.Fatal(err)
			}
			saved = 0
			continue
		}
		if status := c.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("attempt %d ended by itself, %v:\n%s", attempt, c.ProcessState, strings.Join(text, "\n"))
		}
		killed++
		if _, err := os.Stat(run); err != nil {
			continue
		}
		if len(unfinished(t, run)) > 0 {
			insideSave++
		}
		// What was saved stays saved, and nothing that looks like a checkpoint is damaged.
		newest, skipped, err := checkpoint.Newest(run)
		switch {
		case len(skipped) > 0:
			t.Errorf("kill %d left a damaged checkpoint: %v", killed, skipped)
		case err == nil:
			if newest.Step < saved {
				t.Errorf("kill %d took the run from step %d back to %d", killed, saved, newest.Step)
			}
			saved = newest.Step
		case saved > 0:
			t.Errorf("kill %d: %v", killed, err)
		}
	}
	t.Logf("%d kills, %d of them inside a save; the last checkpoint was of step %d of %d", killed, insideSave, saved, steps)
	if killed < kills || insideSave == 0 {
		t.Errorf("%d kills, %d inside a save: too few to show anything", killed, insideSave)
	}
	if e := start(t, dir, args()...); e.code != exitOK {
		t.Fatalf("%+v", e)
	}
	mustEqual(t, outcomeOf(t, run), want)
	if left := unfinished(t, run); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// skips returns the number of steps that a run's guard skipped.
func skips(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	for _, r := range records(t, dir) {
		if r.Event.Name == runlog.EventSkipped {
			n++
		}
	}
	return n
}

// killInSave kills a program when it saves for the nth time.
func killInSave(c *exec.Cmd, run string, nth int) {
	seen := map[string]bool{}
	for c.Process.Signal(syscall.Signal(0)) == nil {
		saving, _ := filepath.Glob(filepath.Join(run, "checkpoints", ".saving-*"))
		for _, name := range saving {
			seen[name] = true
		}
		if len(seen) == nth {
			c.Process.Kill()
			return
		}
	}
}

// TestSignalled stops a run with SIGTERM and, after resuming it, with each other signal that stops
// one.
func TestSignalled(t *testing.T) {
	// More steps than a pipe can buffer lines for: the run can't end before it is read.
	args := []string{"--steps", "1500", "--set", "eval.every=500", "--set", "checkpoint.every=1000"}
	dir := workspace(t, 1, 1)
	want := reference(t, dir, args...)
	run := filepath.Join(dir, "run")
	last := 0
	for _, stop := range []struct {
		signal syscall.Signal
		args   []string
	}{
		{syscall.SIGTERM, append([]string{"pretrain", "tiny.yaml"}, args...)},
		{syscall.SIGINT, []string{"resume", "run"}},
		{syscall.SIGUSR1, []string{"resume", "run"}},
		{syscall.SIGHUP, []string{"resume", "run"}},
	} {
		if signal.Ignored(stop.signal) { // by nohup, and therefore by what it starts
			continue
		}
		c := program(dir, nil, stop.args...)
		stderr, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		log := bufio.NewReader(stderr)
		waitForSteps(t, c, log, 5)
		// While one process works on the run, another is refused. On a busy machine the first one
		// would end in the meantime, so suspend it.
		if err := c.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"resume", "run"}, {"pretrain", "tiny.yaml"}} {
			if e := start(t, dir, args...); e.code != exitFailure || strings.Count(e.stderr, "\n") != 1 || !strings.HasPrefix(e.stderr, "sambatrain: run: ") {
				t.Errorf("%v beside a running process: %+v", args, e)
			}
		}
		for _, s := range []syscall.Signal{stop.signal, syscall.SIGCONT} {
			if err := c.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
		rest, err := io.ReadAll(log)
		if err != nil {
			t.Fatal(err)
		}
		c.Wait()
		e := ended{code: c.ProcessState.ExitCode(), stderr: string(rest)}
		var step int
		if _, err := fmt.Sscanf(e.complaint(), "sambatrain: stopped after step %d and saved; continue with: sambatrain resume run", &step); err != nil || e.code != exitStopped {
			t.Fatalf("%v: exit status %d, %q", stop.signal, e.code, e.complaint())
		}
		if newest, _, err := checkpoint.Newest(run); err != nil || newest.Step != int64(step) {
			t.Errorf("%v: stopped after step %d, saved is %+v (%v)", stop.signal, step, newest, err)
		}
		if n := lastStep(t, run); n != step || step <= last {
			t.Errorf("%v: stopped after step %d, the last on record is %d, the last stop was after %d", stop.signal, step, n, last)
		}
		last = step
	}
	if e := start(t, dir, "resume", "run"); e.code != exitOK {
		t.Fatalf("%+v", e)
	}
	mustEqual(t, outcomeOf(t, run), want)
}

// TestPrepareSignalled: preparation of shards continues after a stop.
func TestPrepareSignalled(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "text"), 0o777); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		write(t, filepath.Join(dir, "text", fmt.Sprintf("%02d.txt", i)), strings.Repeat(fmt.Sprintf("%d green bottles\n", i), 40_000))
	}
	args := []string{"data", "prepare", "--text", "text", "--shards", "shards"}
	c := program(dir, nil, args...)
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for err := error(fs.ErrNotExist); err != nil; _, err = os.Stat(filepath.Join(dir, "shards.partial")) {
		if time.Since(began) > time.Minute {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(stderr)
	if err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if e := (ended{code: c.ProcessState.ExitCode(), stderr: string(log)}); e.code != exitStopped || e.complaint() != "sambatrain: stopped by a signal; the same command continues from here" {
		t.Errorf("%+v", e)
	}
	if e := start(t, dir, args...); e.code != exitOK {
		t.Errorf("again: %+v", e)
	}
}

// TestSignalledTwice: a signal that comes twice within a second counts once; a later one ends a
// program that is still busy.
func TestSignalledTwice(t *testing.T) {
	dir := workspace(t, 2, 2)
	reference(t, dir)
	c, url := startServer(t, dir, "ref", "--grace", "1m")
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	defer c.Process.Kill()
	// A client that has sent no more than the head of a request keeps the server busy.
	host := strings.Split(strings.TrimPrefix(url, "http://"), "/")[0]
	client, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := fmt.Fprintf(client, "POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", host); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(client).ReadString('\n'); err != nil || !strings.Contains(line, " 100 ") {
		t.Fatalf("%q, %v", line, err)
	}
	signal := func(s syscall.Signal) {
		if err := c.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
	began := time.Now()
	signal(syscall.SIGINT)
	time.Sleep(50 * time.Millisecond) // for the first to be handled
	signal(syscall.SIGTERM)
	if took := time.Since(began); took > echo/2 {
		t.Skipf("the machine is too busy to send two signals at once: it took %v", took)
	}
	select {
	case err := <-ended:
		t.Fatalf("it ends at once: %v", err)
	case <-time.After(2 * time.Second):
	}
	for tries, over := 0, false; !over; tries++ {
		if tries == 20 {
			t.Fatal("it does not end")
		}
		signal(syscall.SIGTERM)
		select {
		case <-ended:
			over = true
		case <-time.After(time.Second): // a busy machine may not have ended the first second yet
		}
	}
	if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ends with %v", c.ProcessState)
	}
}

// TestUnheard: a run whose log nobody reads any more is stopped as by SIGHUP, and continues if SIGHUP
// is ignored.
func TestUnheard(t *testing.T) {
	args := []string{"--steps", "1500", "--set", "eval.every=0", "--set", "checkpoint.every=1000"}
	for _, c := range []struct {
		shell      string
		code, step int // of the end; 0: before the last
	}{{`exec "$0" "$@"`, exitStopped, 0}, {`trap "" HUP; exec "$0" "$@"`, exitOK, 1500}} {
		if c.code == exitStopped && signal.Ignored(syscall.SIGHUP) { // by nohup, and so by what it starts
			continue
		}
		dir := workspace(t, 1, 1)
		run := filepath.Join(dir, "run")
		cmd := program(dir, nil, append([]string{"pretrain", "tiny.yaml"}, args...)...)
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", c.shell}, cmd.Args...)
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitForSteps(t, cmd, bufio.NewReader(stderr), 5)
		if err := stderr.Close(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		newest, _, err := checkpoint.Newest(run)
		if err != nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != c.code || lastStep(t, run) != int(newest.Step) || (newest.Step == 1500) != (c.step == 1500) {
			t.Errorf("%s: exit status %d (%v), step %d, saved %d", c.shell, code, cmd.ProcessState, lastStep(t, run), newest.Step)
		}
	}
}

// waitForSteps reads a run's log until it has shown n training steps.
func waitForSteps(t *testing.T, c *exec.Cmd, log *bufio.Reader, n int) {
	t.Helper()
	for n > 0 {
		line, err := log.ReadString('\n')
		if err != nil {
			c.Wait()
			t.Fatalf("the run ended: %v, %q", c.ProcessState, line)
		}
		if strings.Contains(line, "  loss ") {
			n--
		}
	}
}

// stopping matches what commands that train log at once when a signal comes.
var stopping = regexp.MustCompile(`(?m)^.*msg="stopping; another signal ends the process at once" signal=terminated\n`)

// TestSignalledBefore stops programs that wait for their data and have nothing to save yet.
func TestSignalledBefore(t *testing.T) {
	dir := workspace(t, 4, 2)
	reference(t, dir)
	if err := os.RemoveAll(filepath.Join(dir, "shards")); err != nil {
		t.Fatal(err)
	}
	// As if another process were preparing the same shards.
	lock := flock.New(filepath.Join(dir, "shards.lock"))
	if held, err := lock.TryLock(); err != nil || !held {
		t.Fatal(held, err)
	}
	defer lock.Unlock()
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"data", "prepare", "--text", "text", "--shards", "shards"}, exitStopped, "sambatrain: stopped by a signal; the same command continues from here"},
		{[]string{"pretrain", "tiny.yaml", "--resume"}, exitStopped, "sambatrain: stopped before the next step, nothing is lost; continue with the same command"},
		{[]string{"resume", "ref"}, exitStopped, "sambatrain: stopped before the next step, nothing is lost; continue with: sambatrain resume ref"},
	} {
		c := program(dir, nil, test.args...)
		stderr, err := c.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		log := bufio.NewReader(stderr)
		if line, err := log.ReadString('\n'); err != nil || !strings.Contains(line, "level=INFO msg=\"waiting for another process") {
			t.Fatalf("%s: %q, %v", test.args[0], line, err)
		}
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(log)
		if err != nil {
			t.Fatal(err)
		}
		c.Wait()
		told := stopping.ReplaceAllString(string(rest), "")
		if code := c.ProcessState.ExitCode(); code != test.code || told != test.want+"\n" || (told == string(rest)) != (test.args[0] == "data") {
			t.Errorf("%s: exit status %d, %q", test.args[0], code, rest)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "run", "config.resolved.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a run has begun: %v", err)
	}
}
