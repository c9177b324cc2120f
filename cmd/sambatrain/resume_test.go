package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
)

// TestDamagedCheckpoint damages the newest checkpoints of a run that has 8, 10 and 12. The previous
// one must be used, with a warning, and the final result be the same.
func TestDamagedCheckpoint(t *testing.T) {
	dir := workspace(t, 12, 2)
	want := reference(t, dir)
	truncate := func(t *testing.T, path string) {
		if err := os.Truncate(path, int64(len(read(t, path))/2)); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(t *testing.T, path string) {
		text := read(t, path)
		text[len(text)*2/3] ^= 0x10
		write(t, path, string(text))
	}
	remove := func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for i, test := range []struct {
		name   string
		file   string
		damage func(t *testing.T, path string)
		steps  []int // whose checkpoint is damaged
		from   int64 // the step that the run continues from
	}{
		{"truncated parameters", "model.safetensors", truncate, []int{12}, 10},
		{"flipped bit of a parameter", "model.safetensors", flip, []int{12}, 10},
		{"truncated moments", "optimizer.safetensors", truncate, []int{12}, 10},
		{"flipped bit of a moment", "optimizer.safetensors", flip, []int{12}, 10},
		{"missing moments", "optimizer.safetensors", remove, []int{12}, 10},
		{"truncated manifest", "manifest.json", truncate, []int{12}, 10},
		{"flipped bit of the manifest", "manifest.json", flip, []int{12}, 10},
		{"missing manifest", "manifest.json", remove, []int{12}, 10},
		{"flipped bit of the manifest's sum", "manifest.json.sha256", flip, []int{12}, 10},
		{"flipped bit of the recipe", "recipe.yaml", flip, []int{12}, 10},
		{"the two newest", "model.safetensors", flip, []int{10, 12}, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := fmt.Sprintf("run%d", i)
			run := filepath.Join(dir, name)
			copyRun(t, filepath.Join(dir, "ref"), run)
			for _, step := range test.steps {
				test.damage(t, filepath.Join(run, "checkpoints", fmt.Sprintf("step-%08d", step), test.file))
			}
			if c, skipped, err := checkpoint.Newest(run); err != nil || c.Step != test.from || len(skipped) != len(test.steps) {
				t.Fatalf("newest good checkpoint %+v, passed over %v (%v)", c, skipped, err)
			}
			e := start(t, dir, "resume", name, "--log-level", "error")
			if e.code != exitOK {
				t.Fatalf("%+v", e)
			}
			for _, step := range test.steps {
				if want := fmt.Sprintf("step-%08d", step); !strings.Contains(e.stderr, "damaged and skipped") || !strings.Contains(e.stderr, want) {
					t.Errorf("standard error does not name %s:\n%s", want, e.stderr)
				}
			}
			mustEqual(t, outcomeOf(t, run), want)
		})
	}
}

// TestDamagedModel: commands that only read a run skip a damaged checkpoint with the same warning.
func TestDamagedModel(t *testing.T) {
	dir := workspace(t, 6, 2)
	reference(t, dir)
	damage := func(step int) {
		if err := os.Truncate(filepath.Join(dir, "ref", "checkpoints", fmt.Sprintf("step-%08d", step), "model.safetensors"), 1000); err != nil {
			t.Fatal(err)
		}
	}
	damage(6)
	for _, args := range [][]string{{"generate", "ref", "--tokens", "2"}, {"export", "ref", "--out", "model"}} {
		e := start(t, dir, args...)
		if e.code != exitOK || !strings.Contains(e.stderr, "damaged and skipped") || !strings.Contains(e.stderr, "step-00000006") {
			t.Errorf("%s: %+v", args[0], e)
		}
		if args[0] == "export" && e.stdout != "exported step 4 of ref to model, for sambatrain\n" {
			t.Errorf("export: %q", e.stdout)
		}
	}
	damage(4)
	damage(2)
	for _, args := range [][]string{{"generate", "ref"}, {"export", "ref", "--out", "none"}, {"resume", "ref"}} {
		e := start(t, dir, args...)
		if e.code != exitFailure || !strings.HasPrefix(e.complaint(), "sambatrain: ref: no checkpoint to load: none of its 3 verifies") {
			t.Errorf("%s without a good checkpoint: %+v", args[0], e)
		}
	}
}

// TestFullDisk limits the size of files to less than a checkpoint needs.
func TestFullDisk(t *testing.T) {
	if !canLimitFiles {
		t.Skip("files are limited on Linux only")
	}
	dir := workspace(t, 12, 2)
	want := reference(t, dir)
	for _, test := range []struct {
		name, file string
		limit      int
	}{
		{"a checkpoint", "optimizer.safetensors", len(want.model) + 4096},
		{"the metrics", "metrics.jsonl", 3000},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := fmt.Sprintf("run%d", test.limit)
			run := filepath.Join(dir, name)
			copyRun(t, filepath.Join(dir, "ref"), run)
			// As if the run had been stopped after step 8.
			for _, step := range []int{10, 12} {
				if err := os.RemoveAll(filepath.Join(run, "checkpoints", fmt.Sprintf("step-%08d", step))); err != nil {
					t.Fatal(err)
				}
			}
			e := finish(t, program(dir, []string{fmt.Sprintf("%s=%d", fileLimit, test.limit)}, "resume", name))
			if e.code != exitFailure || !strings.HasPrefix(e.complaint(), "sambatrain: ") ||
				!strings.Contains(e.complaint(), test.file) || !strings.Contains(e.complaint(), "file too large") {
				t.Fatalf("exit status %d, %q", e.code, e.complaint())
			}
			if left := unfinished(t, run); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			if c, skipped, err := checkpoint.Newest(run); err != nil || c.Step != 8 || len(skipped) > 0 {
				t.Errorf("newest checkpoint %+v, passed over %v (%v)", c, skipped, err)
			}
			if e := start(t, dir, "resume", name); e.code != exitOK {
				t.Fatalf("with room again: %+v", e)
			}
			mustEqual(t, outcomeOf(t, run), want)
		})
	}
}

// TestInUse: only one process at a time may use a run directory.
func TestInUse(t *testing.T) {
	dir := workspace(t, 4, 2)
	reference(t, dir)
	run := filepath.Join(dir, "ref")
	before := read(t, filepath.Join(run, "metrics.jsonl"))
	lock, err := checkpoint.Lock(run)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("sambatrain: ref: in use by process %d on host ", os.Getpid())
	if e := start(t, dir, "resume", "ref"); e.code != exitFailure || !strings.HasPrefix(e.stderr, want) || strings.Count(e.stderr, "\n") != 1 {
		t.Errorf("resume: %+v", e)
	}
	// Commands that only read may run.
	if e := start(t, dir, "generate", "ref", "--tokens", "1"); e.code != exitOK {
		t.Errorf("generate: %+v", e)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(run, "metrics.jsonl")); string(got) != string(before) {
		t.Error("the refused process wrote metrics")
	}
	if e := start(t, dir, "resume", "ref"); e.code != exitOK {
		t.Errorf("resume after the other: %+v", e)
	}

	// The same before a run has begun.
	if err := os.Mkdir(filepath.Join(dir, "new"), 0o777); err != nil {
		t.Fatal(err)
	}
	if lock, err = checkpoint.Lock(filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if e := start(t, dir, "pretrain", "tiny.yaml", "--out", "new"); e.code != exitFailure || !strings.Contains(e.stderr, "new: in use by process") {
		t.Errorf("pretrain: %+v", e)
	}
}

func TestResumeFlags(t *testing.T) {
	for line, want := range map[string]string{
		"pretrain tiny.yaml": "",
		"pretrain tiny.yaml --steps 3 --set optim.lr=1 --out x --device cpu --threads 1 --resume": "",
		"pretrain tiny.yaml --nproc-per-node auto --log-format json --output json":                "--log-format json --nproc-per-node auto --output json",
		"finetune x --task passkey --rank 1 --world-size 2 --local-rank 1 --master a:1":           "--local-rank 1 --master a:1 --rank 1 --world-size 2",
		"resume x --set optim.lr=1 --allow-data-change --log-level=warn":                          "--log-level warn",
		"compare a b --output markdown --log-format json --lengths 1,2":                           "--log-format json",
	} {
		c, args, err := newRoot().Find(strings.Fields(line))
		if err == nil {
			err = c.ParseFlags(args)
		}
		if err != nil {
			t.Fatal(line, err)
		}
		if got := strings.Join(resumeFlags(c), " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
