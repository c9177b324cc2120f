package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// asProgram makes this test binary behave as sambatrain, so that tests can start it, signal it and
// kill it.
const asProgram = "SAMBATRAIN_TEST_AS_PROGRAM"

// fileLimit is the size in bytes that no file of the program may exceed.
const fileLimit = "SAMBATRAIN_TEST_FILE_LIMIT"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		if limit := os.Getenv(fileLimit); limit != "" {
			if err := limitFiles(limit); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(99)
			}
		}
		os.Exit(run(os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){
		"sambatrain": func() { os.Exit(run(os.Args[1:])) },
	})
}

// program returns a command that runs sambatrain with arguments in dir, with variables added to its
// environment.
func program(dir string, env []string, args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Dir = dir
	c.Env = append(append(os.Environ(), asProgram+"=1"), env...)
	return c
}

// ended says how a program ended.
type ended struct {
	code           int
	stdout, stderr string
}

// start runs the program to its end.
func start(t *testing.T, dir string, args ...string) ended {
	t.Helper()
	return finish(t, program(dir, nil, args...))
}

func finish(t *testing.T, c *exec.Cmd) ended {
	t.Helper()
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ended{c.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// complaint returns the program's own message: the last line of standard error. What comes before
// is the log.
func (e ended) complaint() string {
	lines := strings.Split(strings.TrimSuffix(e.stderr, "\n"), "\n")
	return lines[len(lines)-1]
}

// tiny is a recipe whose whole run takes a fraction of a second: every mixer, and two micro-batches
// per step.
const tiny = `# Every mixer, in a fraction of a second.
name: tiny
model:
  vocab_size: 272
  d_model: 16
  layers: {pattern: [mamba, mlp, swa, attn]}
  attention: {heads: 2, window: 8}
  mlp: {d_ff: 32}
data:
  text: {path: text, include: ["**/*.txt"]}
  shards: shards
  seq_len: 16
  validation_fraction: 0.2
optim: {lr: 1.0e-2, warmup_steps: 2}
train: {steps: %d, batch_size: 4, micro_batch: 2}
eval: {every: 5, rows: 3}
checkpoint: {every: %d, keep_last: 3}
sample: {prompt: "one", tokens: 10}
run: {out: run, threads: 1, log_every: 1}
`

// workspace returns a folder with a recipe, tiny.yaml, and shards that are prepared for it.
func workspace(t *testing.T, steps, every int) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "text"), 0o777); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		text := strings.Repeat(fmt.Sprintf("%d green bottles hanging on the wall\n", i), 6)
		write(t, filepath.Join(dir, "text", fmt.Sprintf("%02d.txt", i)), text)
	}
	write(t, filepath.Join(dir, "tiny.yaml"), fmt.Sprintf(tiny, steps, every))
	if e := start(t, dir, "data", "prepare", "--text", "text", "--include", "**/*.txt", "--shards", "shards", "--validation-fraction", "0.2"); e.code != exitOK {
		t.Fatalf("data prepare: %+v", e)
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}
