package arch_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsNameFilesThatAreThere: paths of this repository in backquotes, and links in
// documents, point to existing files.
func TestDocumentsNameFilesThatAreThere(t *testing.T) {
	quoted := regexp.MustCompile("`((?:checkpoint|cmd|data|docs|graph|internal|layers|optim|recipes|scripts)/[A-Za-z0-9_./*-]+)`")
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	checked := 0
	err := fs.WalkDir(os.DirFS(root), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && file != "." && (name == "testdata" || strings.HasPrefix(name, ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".md") {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return err
		}
		for _, m := range quoted.FindAllStringSubmatch(string(text), -1) {
			checked++
			if !there(filepath.Join(root, m[1])) {
				t.Errorf("%s names %s, which is not there", file, m[1])
			}
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			checked++
			if !there(filepath.Join(root, filepath.Dir(file), m[1])) {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 100 {
		t.Errorf("found %d paths only", checked)
	}
}

// there reports whether a path, which may be a pattern or a prefix, matches a file or a folder.
func there(path string) bool {
	list, err := filepath.Glob(strings.TrimSuffix(path, "/") + "*")
	return err == nil && len(list) > 0
}
