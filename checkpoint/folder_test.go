package checkpoint

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// folderFiles returns the files that the tests write: a small one, and one with several writes.
func folderFiles() []File {
	return []File{Bytes("config.json", []byte("{}\n")), {"weights", func(w io.Writer) error {
		for range 3 {
			if _, err := w.Write(bytes.Repeat([]byte("abcd"), chunk/3)); err != nil {
				return err
			}
		}
		return nil
	}}}
}

// written checks that dir contains folderFiles and nothing else.
func written(t *testing.T, dir string) {
	t.Helper()
	for _, f := range folderFiles() {
		var want bytes.Buffer
		if err := f.Write(&want); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, f.Name)); err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s: %d bytes (%v), want %d", f.Name, len(got), err, want.Len())
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(folderFiles()) {
		t.Errorf("the folder holds %v (%v)", entries, err)
	}
}

func TestWriteFolder(t *testing.T) {
	parent := t.TempDir()
	empty := filepath.Join(parent, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{filepath.Join(parent, "new"), empty, filepath.Join(parent, "deep", "er")} {
		if err := WriteFolder(out, folderFiles()); err != nil {
			t.Fatal(err)
		}
		written(t, out)
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 3 {
		t.Errorf("beside the folders lies something else: %v", entries)
	}
}

// TestWriteFolderThroughLink: the link stays, and the files are where it leads.
func TestWriteFolderThroughLink(t *testing.T) {
	parent := t.TempDir()
	to, link := filepath.Join(parent, "elsewhere"), filepath.Join(parent, "link")
	if err := os.Symlink(to, link); err != nil {
		t.Fatal(err)
	}
	wantError(t, WriteFolder(link, folderFiles()), link+": is a link that leads nowhere")
	if err := os.Mkdir(to, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := WriteFolder(link, folderFiles()); err != nil {
		t.Fatal(err)
	}
	written(t, to)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
}

// TestWriteFolderTogether: of two writers of one folder one wins, and nothing is mixed.
func TestWriteFolderTogether(t *testing.T) {
	parent := t.TempDir()
	out := filepath.Join(parent, "out")
	var begun, all sync.WaitGroup
	begun.Add(2)
	errs := make([]error, 2)
	for i := range errs {
		content := []byte{byte(i)}
		all.Go(func() {
			errs[i] = WriteFolder(out, []File{{"first", func(w io.Writer) error {
				begun.Done()
				begun.Wait() // both have made their folders
				_, err := w.Write(content)
				return err
			}}, Bytes("second", content)})
		})
	}
	all.Wait()
	winner := slices.Index(errs, nil)
	if winner < 0 || errs[1-winner] == nil {
		t.Fatalf("errors are %v", errs)
	}
	wantError(t, errs[1-winner], "the folder is not empty (it holds first)")
	for _, name := range []string{"first", "second"} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Equal(got, []byte{byte(winner)}) {
			t.Errorf("%s holds %v, %v; want that of writer %d", name, got, err, winner)
		}
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
		t.Errorf("beside the folder lies something else: %v, %v", entries, err)
	}
}

func TestWriteFolderRefuses(t *testing.T) {
	for _, names := range [][]string{{"../x"}, {""}, {"a/b"}, {"."}, {"a", "a"}} {
		out := filepath.Join(t.TempDir(), "out")
		var files []File
		for _, name := range names {
			files = append(files, Bytes(name, nil))
		}
		wantError(t, WriteFolder(out, files), names[len(names)-1], "not a name, or given twice")
		if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s exists", out)
		}
	}
	full := t.TempDir()
	path := filepath.Join(full, "precious")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	wantError(t, WriteFolder(full, folderFiles()), "not empty (it holds precious)")
	wantError(t, WriteFolder(path, folderFiles()), path)
	if entries, err := os.ReadDir(full); err != nil || len(entries) != 1 {
		t.Errorf("the folder holds %v (%v)", entries, err)
	}
}

// TestWriteFolderDiskFullAtEveryOperation: the folder is complete or doesn't exist.
func TestWriteFolderDiskFullAtEveryOperation(t *testing.T) {
	for at := 1; ; at++ {
		parent := t.TempDir()
		out := filepath.Join(parent, "new", "too", "out")
		fs := newFaultyFS(at, syscall.ENOSPC, false)
		err := writeFolder(fs, out, folderFiles())
		if !fs.hit() {
			if err != nil {
				t.Fatal(err)
			}
			written(t, out)
			if n := len(fs.unsyncedFiles) + len(fs.unsyncedNames); n > 0 {
				t.Errorf("a power failure would lose %v %v", fs.unsyncedFiles, fs.unsyncedNames)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("operation %d: error is %v", at, err)
		}
		if _, err := os.Stat(out); err == nil {
			written(t, out)
		}
		hidden, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(hidden) > 0 {
			t.Errorf("operation %d: left over: %q", at, strings.Join(hidden, " "))
		}
	}
}
