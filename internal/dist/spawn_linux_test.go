package dist

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Variables of the processes that TestSpawn starts.
const (
	testFolder = "DIST_TEST_FOLDER"
	testRole   = "DIST_TEST_ROLE"
)

const testStopped, testLost = 75, 76

// TestSpawn starts this test binary as the processes of a machine.
func TestSpawn(t *testing.T) {
	node := Topology{Rank: 2, Size: 4, Spawn: 2, Master: "h:1", Source: "test"}
	for _, c := range []struct {
		role   string
		node   Topology // `node` if this is zero
		signal bool     // once both processes exist
		want   *ChildError
	}{
		{role: "content"},
		{role: "one machine", node: Topology{Size: 2, Spawn: 2, Master: "h:1", Source: "test"}},
		{role: "one stops early", signal: true, want: &ChildError{Rank: 3, Code: testStopped}},
		{role: "one fails, the other hangs", want: &ChildError{Rank: 3, Code: 9}},
		{role: "one is killed, the other hangs", want: &ChildError{Rank: 3, Code: testLost}},
	} {
		t.Run(c.role, func(t *testing.T) {
			dir := t.TempDir()
			signals := make(chan os.Signal, 1)
			if c.signal {
				go func() {
					for len(entries(dir)) < 2 {
						time.Sleep(time.Millisecond)
					}
					signals <- syscall.SIGTERM
				}()
			}
			s := Spawner{Signals: signals, Stopped: testStopped, Lost: testLost, Grace: 100 * time.Millisecond, Command: func() *exec.Cmd {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), "SAMBATRAIN_TEST_PROCESS=spawned", testFolder+"="+dir, testRole+"="+c.role)
				cmd.Stderr = t.Output()
				return cmd
			}}
			if c.node.Size == 0 {
				c.node = node
			}
			err := s.Run(c.node)
			var got *ChildError
			if errors.As(err, &got) != (c.want != nil) || c.want != nil && (got.Rank != c.want.Rank || got.Code != c.want.Code) {
				t.Errorf("ends with %+v, want %+v", err, c.want)
			}
			files := 2 // of the processes' places
			if c.signal {
				files++ // of what the first process saved
			}
			if list := entries(dir); len(list) != files {
				t.Errorf("the processes wrote %v, want %d files", list, files)
			}
		})
	}
}

func entries(dir string) []string {
	list, _ := filepath.Glob(filepath.Join(dir, "*"))
	return list
}

// spawnedProcess is a process that TestSpawn starts.
func spawnedProcess() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	// The flags are those of the parent, which asks for processes: the child's place takes
	// precedence.
	f := NoFlags()
	f.PerNode = "2"
	top, err := Detect(f, os.LookupEnv, 2)
	if err != nil {
		return err
	}
	want := Topology{Rank: 2 + top.LocalRank, Size: 4, LocalRank: top.LocalRank, Master: "h:1", Source: "SAMBATRAIN_*"}
	if os.Getenv(testRole) == "one machine" {
		if want.Rank, want.Size, want.Secret = top.LocalRank, 2, top.Secret; len(top.Secret) < 20 {
			return fmt.Errorf("the secret is %q", top.Secret)
		}
	}
	if top != want {
		return fmt.Errorf("%+v, want %+v", top, want)
	}
	dir := os.Getenv(testFolder)
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(top.Rank)), nil, 0o666); err != nil {
		return err
	}
	for len(entries(dir)) < 2 {
		time.Sleep(time.Millisecond)
	}
	second := top.LocalRank == 1
	switch role := os.Getenv(testRole); {
	case role == "one stops early":
		<-signals
		if !second {
			time.Sleep(300 * time.Millisecond) // longer than failures are waited for: it saves
			if err := os.WriteFile(filepath.Join(dir, "saved"), nil, 0o666); err != nil {
				return err
			}
		}
		os.Exit(testStopped)
	case strings.HasSuffix(role, "the other hangs") && !second:
		select {}
	case role == "one fails, the other hangs":
		os.Exit(9)
	case role == "one is killed, the other hangs":
		self, _ := os.FindProcess(os.Getpid())
		return self.Kill()
	}
	return nil
}

// TestSpawnWithoutMaster: processes on several machines must be told where to meet; those on one
// machine meet at a free port.
func TestSpawnWithoutMaster(t *testing.T) {
	s := Spawner{}
	if err := s.Run(Topology{Size: 4, Spawn: 2, Source: "test"}); err == nil || !strings.Contains(err.Error(), "set SAMBATRAIN_MASTER") {
		t.Errorf("2 of 4 processes without a master: %v", err)
	}
	top := Topology{Size: 2, Spawn: 2}
	if err := top.findMaster(); err != nil || !strings.HasPrefix(top.Master, "127.0.0.1:") {
		t.Errorf("master %q, %v", top.Master, err)
	}
}
