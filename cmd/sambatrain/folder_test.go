package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMakeFolder: of the folders that were made, only those that stayed empty are removed.
func TestMakeFolder(t *testing.T) {
	for _, test := range []struct {
		name, before, file string
		want               string // the outermost of a/b/c that is removed
	}{
		{"all are new and empty", "", "", "a"},
		{"the outermost was there", "a", "", "a/b"},
		{"all were there", "a/b/c", "", ""},
		{"one is in use", "", "a/file", "a/b"},
		{"the innermost is in use", "", "a/b/c/file", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if err := os.MkdirAll(filepath.FromSlash("./"+test.before), 0o777); err != nil {
				t.Fatal(err)
			}
			tidy, err := makeFolder(filepath.FromSlash("a/b/c"))
			if err != nil {
				t.Fatal(err)
			}
			if test.file != "" {
				write(t, filepath.FromSlash(test.file), "")
			}
			tidy()
			gone := ""
			for _, dir := range []string{"a/b/c", "a/b", "a"} {
				if _, err := os.Stat(filepath.FromSlash(dir)); err != nil {
					gone = dir
				}
			}
			if gone != test.want {
				t.Errorf("%q is gone, want %q", gone, test.want)
			}
		})
	}
}
