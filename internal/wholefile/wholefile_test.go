package wholefile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "result.json")
	for _, content := range []string{"before", "after", ""} {
		if err := Write(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("holds %q, %v; want %q", got, err, content)
		}
	}
	alone(t, dir, "result.json")
}

// A folder is in the way of the final rename.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "result.json")
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o777); err != nil {
		t.Fatal(err)
	}
	// Errors name the file that was asked for.
	if err := Write(path, []byte("x")); err == nil || !strings.HasPrefix(err.Error(), "write "+path+": ") {
		t.Errorf("over a folder: %v", err)
	}
	alone(t, dir, "result.json")
	none := filepath.Join(dir, "none", "result.json")
	if err := Write(none, nil); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "open "+none+": ") {
		t.Errorf("into a folder that is not there: %v", err)
	}
}

// TestWriteTogether: of several writers at the same time one wins, and nothing is mixed.
func TestWriteTogether(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "result.json")
	contents := []string{strings.Repeat("a", 1<<16), strings.Repeat("b", 1<<10), strings.Repeat("c", 1<<14)}
	var all sync.WaitGroup
	for _, content := range contents {
		all.Go(func() {
			for range 20 {
				if err := Write(path, []byte(content)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got, err := os.ReadFile(path); err != nil || !slices.Contains(contents, string(got)) {
		t.Errorf("holds %d bytes that nobody wrote, %v", len(got), err)
	}
	alone(t, dir, "result.json")
}

// TestWriteBesideLeftOver: what a killed process left is neither used nor in the way.
func TestWriteBesideLeftOver(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "result.json")
	if err := os.Mkdir(path+".tmp", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, []byte("x")); err != nil {
		t.Error(err)
	}
}

// TestWritePermissions: a new file has those of any new file, and a replaced one keeps its own.
func TestWritePermissions(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files have no permissions there")
	}
	dir := t.TempDir()
	path, other := filepath.Join(dir, "result.json"), filepath.Join(dir, "other")
	if err := errors.Join(Write(path, nil), os.WriteFile(other, nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode()
	}
	if mode(path) != mode(other) {
		t.Errorf("a new file is %v, want %v", mode(path), mode(other))
	}
	if err := errors.Join(os.Chmod(path, 0o640), Write(path, []byte("x"))); err != nil || mode(path) != 0o640 {
		t.Errorf("the file is %v, %v", mode(path), err)
	}
}

// TestWriteThroughLink: the link stays, and the file is where it leads.
func TestWriteThroughLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	to, link := filepath.Join(elsewhere, "file"), filepath.Join(dir, "link")
	if err := os.Symlink(to, link); err != nil {
		t.Skip(err)
	}
	if err := Write(link, nil); err == nil || err.Error() != link+": is a link that leads nowhere: make what it leads to, or remove the link" {
		t.Errorf("error is %v", err)
	}
	if err := errors.Join(os.WriteFile(to, []byte("before"), 0o666), Write(link, []byte("after"))); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "after" {
		t.Errorf("holds %q, %v", got, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	alone(t, dir, "link")
	alone(t, elsewhere, "file")
}

// alone fails unless dir contains nothing but name.
func alone(t *testing.T, dir, name string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 || list[0].Name() != name {
		t.Errorf("the folder holds %v, %v; want %s alone", list, err, name)
	}
}

// TestWriteByFails: if what writes fails, the file stays as it was.
func TestWriteByFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "result.json")
	if err := Write(path, []byte("before")); err != nil {
		t.Fatal(err)
	}
	wrong := errors.New("wrong")
	err := WriteBy(path, func(w io.Writer) error {
		_, err := io.WriteString(w, "after")
		return errors.Join(err, wrong)
	})
	if !errors.Is(err, wrong) || err.Error() != "wrong" {
		t.Errorf("error is %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "before" {
		t.Errorf("holds %q, %v", got, err)
	}
	alone(t, dir, "result.json")
}

func TestSyncDir(t *testing.T) {
	dir := t.TempDir()
	if err := SyncDir(dir); err != nil {
		t.Error(err)
	}
	if err := SyncDir(filepath.Join(dir, "none")); runtime.GOOS != "windows" && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a folder that is not there: %v", err)
	}
}

// TestRemoveLeft: what a killed writer of the file left is removed, and nothing else.
func TestRemoveLeft(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "result.json")
	left, err := createBeside(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	others := []string{".result.json.0123456789abcdef", ".result.json.1.tmp", ".sample.txt.0123456789abcdef.tmp", "result.json", "result.json.0123456789abcdef.tmp"}
	for _, name := range others {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	names, err := RemoveLeft("result.json")
	if err != nil || !slices.Equal(names, []string{filepath.Base(left.Name())}) {
		t.Errorf("removed %v, %v", names, err)
	}
	entries, err := os.ReadDir(dir)
	var there []string
	for _, e := range entries {
		there = append(there, e.Name())
	}
	if err != nil || !slices.Equal(there, others) {
		t.Errorf("there are %v, %v", there, err)
	}
}
