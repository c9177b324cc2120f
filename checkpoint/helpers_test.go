package checkpoint

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// helpers are what this test binary does instead of testing when it is started as another process,
// selected by helperVariable. Each gets the run directory.
var helpers = map[string]func(runDir string) error{
	"lock":   helpLock,
	"save":   helpSave,
	"folder": helpFolder,
}

const (
	helperVariable = "CHECKPOINT_TEST_HELPER"
	runVariable    = "CHECKPOINT_TEST_RUN"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(helperVariable); name != "" {
		if err := helpers[name](os.Getenv(runVariable)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helper prepares a command that runs this test binary as another process.
func helper(t *testing.T, name, runDir string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(append(os.Environ(), helperVariable+"="+name, runVariable+"="+runDir), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// startHelper starts a helper and returns once it has called waitForKill, or failed to.
func startHelper(t *testing.T, cmd *exec.Cmd) (waiting bool) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil { // held open: the helper waits on it
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	said := make([]byte, len(waitingLine))
	n, _ := io.ReadFull(out, said)
	return string(said[:n]) == waitingLine
}

const waitingLine = "waiting\n"

func waitForKill() {
	fmt.Print(waitingLine)
	io.Copy(io.Discard, os.Stdin)
}

// tensors makes a small model whose values depend on seed, including some bit patterns that
// arithmetic would not preserve.
func tensors(seed int) (model, optimizer []Tensor) {
	odd := []float32{
		math.Float32frombits(0x7fc01234), math.Float32frombits(0xff800001), float32(math.Copysign(0, -1)),
		float32(math.Inf(1)), math.SmallestNonzeroFloat32, float32(seed),
	}
	for i, shape := range [][]int{{2, 3}, {5}, {}, {3, 1, 2}} {
		name := fmt.Sprintf("layers.%d.weight", i)
		for _, prefix := range []string{"", ExpAvgPrefix, ExpAvgSqPrefix} {
			n := 1
			for _, d := range shape {
				n *= d
			}
			data := make([]float32, n)
			for j := range data {
				data[j] = float32(seed*1000+i*100+j) / 7
			}
			t := Tensor{Name: prefix + name, Shape: shape, Data: data}
			if prefix == "" {
				copy(data, odd)
				model = append(model, t)
			} else {
				optimizer = append(optimizer, t)
			}
		}
	}
	return model, optimizer
}

// blank returns tensors with the same names and shapes, filled with something else.
func blank(like []Tensor) []Tensor {
	out := make([]Tensor, len(like))
	for i, t := range like {
		out[i] = Tensor{Name: t.Name, Shape: t.Shape, Data: make([]float32, len(t.Data))}
		for j := range out[i].Data {
			out[i].Data[j] = -77
		}
	}
	return out
}

func sameBits(t *testing.T, got, want []Tensor) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d tensors, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Name != want[i].Name {
			t.Fatalf("tensor %d is %q, want %q", i, got[i].Name, want[i].Name)
		}
		for j := range want[i].Data {
			g, w := math.Float32bits(got[i].Data[j]), math.Float32bits(want[i].Data[j])
			if g != w {
				t.Fatalf("%s[%d] has bits %08x, want %08x", want[i].Name, j, g, w)
			}
		}
	}
}

func state(step int64) State {
	return State{
		Step: step, Tokens: 4096 * step, Position: 8 * step, CodeVersion: "v0.0.0-test",
		RecipeSHA256: RecipeSHA256([]byte("model: {}\n")),
		Extra:        map[string]json.RawMessage{"metrics": json.RawMessage(`{"offset":9007199254740993,"ema":[0.1]}`)},
	}
}

// noSyncFS doesn't wait for the disk, which most tests don't need.
type noSyncFS struct{ osFS }

func (noSyncFS) SyncDir(string) error { return nil }

func (fs noSyncFS) Create(path string) (file, error) {
	f, err := fs.osFS.Create(path)
	return noSyncFile{f}, err
}

type noSyncFile struct{ file }

func (noSyncFile) Sync() error { return nil }

func lock(t *testing.T, runDir string) *Run {
	t.Helper()
	r, err := Lock(runDir)
	if err != nil {
		t.Fatal(err)
	}
	r.fs = noSyncFS{}
	t.Cleanup(func() { r.Unlock() })
	return r
}

// save saves a checkpoint of the given step, with tensors of seed.
func save(t *testing.T, r *Run, step int64, seed int) Info {
	t.Helper()
	model, optimizer := tensors(seed)
	info, err := r.Save(state(step), model, optimizer)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// holds checks that c contains the tensors of seed.
func holds(t *testing.T, c *Checkpoint, seed int) {
	t.Helper()
	model, optimizer := tensors(seed)
	gotModel, gotOptimizer := blank(model), blank(optimizer)
	if err := c.Read(gotModel, gotOptimizer); err != nil {
		t.Fatal(err)
	}
	sameBits(t, gotModel, model)
	sameBits(t, gotOptimizer, optimizer)
}

// newest is Newest, for when a checkpoint must be found and none skipped.
func newest(t *testing.T, runDir string) *Checkpoint {
	t.Helper()
	c, skipped, err := Newest(runDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range skipped {
		t.Fatalf("skipped %s: %v", s.Dir, s.Err)
	}
	return c
}

// flip inverts one bit of a file.
func flip(t *testing.T, path string, offset int, bit uint) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[offset] ^= 1 << bit
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
}

// leftovers lists the hidden names in the run's checkpoints folder.
func leftovers(t *testing.T, runDir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(runDir, checkpointsDir, ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// wantError checks that err is one line that contains every part.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", parts)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error takes more than one line: %q", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error is %q, want it to say %q", err, p)
		}
	}
}
