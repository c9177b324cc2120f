package wholefile

import (
	"os"
	"path/filepath"
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
	if err := Write(path, []byte("x")); err == nil {
		t.Error("writes over a folder")
	}
	alone(t, dir, "result.json")
	if err := Write(filepath.Join(dir, "none", "result.json"), nil); err == nil {
		t.Error("writes into a folder that is not there")
	}
}

// alone fails unless dir contains nothing but name.
func alone(t *testing.T, dir, name string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 || list[0].Name() != name {
		t.Errorf("the folder holds %v, %v; want %s alone", list, err, name)
	}
}
