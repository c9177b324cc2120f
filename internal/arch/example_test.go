package arch

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestExampleCompiles: the mixer of docs/add-a-layer.md compiles as a file of package layers.
func TestExampleCompiles(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs/add-a-layer.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(package layers\n.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) != 1 {
		t.Fatalf("docs/add-a-layer.md has %d files of package layers, want 1", len(blocks))
	}
	example, overlay := filepath.Join(t.TempDir(), "example.go"), filepath.Join(t.TempDir(), "overlay.json")
	if err := os.WriteFile(example, blocks[0][1], 0o644); err != nil {
		t.Fatal(err)
	}
	paths, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "layers/example_of_docs.go"): example}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(overlay, paths, 0o644); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "vet", "-overlay", overlay, "./layers")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
