package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestFullOutput: a result that can't be written is a failure, of commands that print it in one piece and
// of others. That nobody reads a run's result is not.
func TestFullOutput(t *testing.T) {
	dir := workspace(t, 4, 2)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for _, args := range [][]string{
		{"version"}, {"help"}, {"pretrain", "tiny.yaml", "--out", "full"}, {"checkpoint", "prune", "full", "--keep-last", "1"},
		{"tokenizer", "train", "--text", "text", "--vocab-size", "260", "--out", "tok"},
	} {
		c := program(dir, nil, args...)
		var stderr bytes.Buffer
		c.Stdout, c.Stderr = full, &stderr
		c.Run()
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		if code := c.ProcessState.ExitCode(); code != exitFailure || lines[len(lines)-1] != "sambatrain: write /dev/stdout: no space left on device" {
			t.Errorf("%q: exit status %d, %s", args, code, stderr.String())
		}
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	if err := read.Close(); err != nil {
		t.Fatal(err)
	}
	c := program(dir, nil, "pretrain", "tiny.yaml", "--out", "unread")
	c.Stdout = write
	if err := c.Run(); err != nil {
		t.Errorf("a result that nobody reads: %v", err)
	}
}
