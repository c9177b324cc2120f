package checkpoint

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzManifest: no input makes parsing panic, and a manifest that parses names only files inside
// its folder and survives being written again.
func FuzzManifest(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		for _, file := range m.Files {
			if !isFileName(file.Name) {
				t.Fatalf("file name %q", file.Name)
			}
		}
		again, _, err := m.encode()
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		m2, err := parseManifest(again)
		if err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		if diff := cmp.Diff(m, m2); diff != "" {
			t.Fatalf("changed by writing and reading (-before +after):\n%s", diff)
		}
	})
}
