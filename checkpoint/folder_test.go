package checkpoint

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
		if _, err := WriteFolder(out, folderFiles()); err != nil {
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
	wantError(t, folderError(link, folderFiles()), link+": is a link that leads nowhere")
	if err := os.Mkdir(to, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteFolder(link, folderFiles()); err != nil {
		t.Fatal(err)
	}
	written(t, to)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
}

// folderError is WriteFolder's error alone.
func folderError(dir string, files []File) error {
	_, err := WriteFolder(dir, files)
	return err
}

// TestWriteFolderTogether: while one process writes a folder, another is refused, and removes nothing.
func TestWriteFolderTogether(t *testing.T) {
	parent := t.TempDir()
	out := filepath.Join(parent, "out")
	recovered, err := WriteFolder(out, []File{{"first", func(w io.Writer) error {
		err := folderError(out, folderFiles())
		wantError(t, err, "the folder is in use by another process, which writes it; choose another, or wait")
		if !errors.Is(err, ErrInUse) {
			t.Error("the error doesn't wrap ErrInUse")
		}
		if err := folderError(filepath.Join(parent, "other"), folderFiles()); err != nil {
			t.Error(err)
		}
		return nil
	}}})
	if err != nil || len(recovered) > 0 {
		t.Fatal(recovered, err)
	}
	onlyFolders(t, parent, "other", "out")
}

// TestWriteFolderAtTheSameTime: if the file system keeps no locks, one of two writers wins, and nothing is
// mixed.
func TestWriteFolderAtTheSameTime(t *testing.T) {
	parent := t.TempDir()
	out, lock := filepath.Join(parent, "out"), filepath.Join(parent, ".out"+writingSuffix)
	_, err := WriteFolder(out, []File{{"weights", func(w io.Writer) error {
		if err := os.Remove(lock); err != nil {
			return err
		}
		return fillAndRename(osFS{}, lock+"-0123456789abcdef", out, false, folderFiles())
	}}})
	wantError(t, err, "the folder is not empty (it holds config.json)")
	written(t, out)
	onlyFolders(t, parent, "out")
}

// onlyFolders fails unless parent contains the folders of these names and nothing else.
func onlyFolders(t *testing.T, parent string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", parent, got, want)
	}
}

// helpFolder stops while it writes the first file of a folder, for the parent to kill it there.
func helpFolder(dir string) error {
	return folderError(dir, []File{{"first", func(io.Writer) error {
		waitForKill()
		return nil
	}}})
}

// TestWriteFolderAfterKill: what a process that was killed left is removed by the next one, and nothing
// else is.
func TestWriteFolderAfterKill(t *testing.T) {
	parent := t.TempDir()
	out := filepath.Join(parent, "out")
	others := []string{".out.writing-0123", ".out.writing-0123456789abcdeg", ".out2.writing-0123456789abcdef"}
	for _, name := range others {
		if err := os.Mkdir(filepath.Join(parent, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := helper(t, "folder", out)
	if !startHelper(t, cmd) {
		t.Fatal("the helper failed")
	}
	wantError(t, folderError(out, folderFiles()), "in use by another process")
	left, err := filepath.Glob(filepath.Join(parent, ".out.writing-????????????????"))
	if err != nil {
		t.Fatal(err)
	}
	left = slices.DeleteFunc(left, func(path string) bool { return slices.Contains(others, filepath.Base(path)) })
	if len(left) != 1 {
		t.Fatalf("the helper's folders are %q", left)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // returns an error because the process was killed
	recovered, err := WriteFolder(out, folderFiles())
	if want := []string{left[0] + ": removed, left over from a write that was interrupted"}; err != nil || !slices.Equal(recovered, want) {
		t.Errorf("recovered %q, %v; want %q", recovered, err, want)
	}
	written(t, out)
	onlyFolders(t, parent, append(others, "out")...)
}

func TestWriteFolderRefuses(t *testing.T) {
	for _, names := range [][]string{{"../x"}, {""}, {"a/b"}, {"."}, {"a", "a"}} {
		out := filepath.Join(t.TempDir(), "out")
		var files []File
		for _, name := range names {
			files = append(files, Bytes(name, nil))
		}
		wantError(t, folderError(out, files), names[len(names)-1], "not a name, or given twice")
		if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s exists", out)
		}
	}
	full := t.TempDir()
	path := filepath.Join(full, "precious")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	wantError(t, folderError(full, folderFiles()), "not empty (it holds precious)")
	wantError(t, folderError(path, folderFiles()), path)
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
		_, err := writeFolder(fs, out, folderFiles())
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
