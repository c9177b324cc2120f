//go:build linux

package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
)

// nobody is a user that file permissions apply to, unlike root.
const nobody = 65534

// TestReadOnly resumes runs in folders that are not writable.
func TestReadOnly(t *testing.T) {
	dir := workspace(t, 12, 2)
	want := reference(t, dir)
	for _, test := range []struct{ name, folder, file string }{
		{"the run directory", "", "run/lock"},
		{"the checkpoints", "checkpoints", "checkpoints/.saving-step-"},
	} {
		t.Run(test.name, func(t *testing.T) {
			run := filepath.Join(dir, "run")
			if err := os.RemoveAll(run); err != nil {
				t.Fatal(err)
			}
			copyRun(t, filepath.Join(dir, "ref"), run)
			for _, name := range []string{"checkpoints/step-00000010", "checkpoints/step-00000012", "lock"} {
				if err := os.RemoveAll(filepath.Join(run, name)); err != nil {
					t.Fatal(err)
				}
			}
			e := resumeReadOnly(t, dir, filepath.Join(run, test.folder))
			if e.code != exitFailure || !strings.HasPrefix(e.complaint(), "sambatrain: ") ||
				!strings.Contains(e.complaint(), test.file) || !strings.Contains(e.complaint(), "permission denied") {
				t.Fatalf("exit status %d, %q", e.code, e.complaint())
			}
			if c, skipped, err := checkpoint.Newest(run); err != nil || c.Step != 8 || len(skipped) > 0 {
				t.Errorf("newest checkpoint %+v, passed over %v (%v)", c, skipped, err)
			}
			if e := start(t, dir, "resume", "run"); e.code != exitOK {
				t.Fatalf("when it may be written again: %+v", e)
			}
			mustEqual(t, outcomeOf(t, run), want)
		})
	}
}

// resumeReadOnly resumes dir/run as a user who may write all of it except folder.
func resumeReadOnly(t *testing.T, dir, folder string) ended {
	t.Helper()
	c := program(dir, nil, "resume", "run")
	if os.Getuid() == 0 {
		asNobody(t, dir)
		// The test binary is in a place that nobody can't read.
		binary := filepath.Join(dir, "program")
		text := read(t, os.Args[0])
		if err := os.WriteFile(binary, text, 0o755); err != nil {
			t.Fatal(err)
		}
		c.Path, c.Args[0] = binary, binary
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if err := os.Chmod(folder, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(folder, 0o777)
	return finish(t, c)
}

// asNobody gives a folder and its contents to nobody, and makes it accessible.
func asNobody(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Chown(path, nobody, nobody)
		}
		return err
	})
	if err == nil {
		err = os.Chmod(filepath.Dir(dir), 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}
