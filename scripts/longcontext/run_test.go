// Package longcontext_test tests the script that makes the measurements of docs/long-context.md.
package longcontext_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build compiles the program into dir, which then has everything that the script needs.
func build(t *testing.T, dir string) string {
	t.Helper()
	for _, program := range []string{"bash", "timeout", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s: %v", program, err)
		}
	}
	bin := filepath.Join(dir, "sambatrain")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/sambatrain").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// TestRun runs all stages on models of a few thousand parameters, twice: the second time there is
// nothing left to do.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	bin, runs := build(t, dir), filepath.Join(dir, "runs")
	script := func(limit string) (string, error) {
		c := exec.Command("./run.sh", "train", "passkey", "ppl", "recall", "speed", "collect")
		c.Env = append(os.Environ(), "TINY=1", "BIN="+bin, "RUNS="+runs, "LIMIT="+limit)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := script("10"); err == nil || !strings.Contains(out, "no time left in this call") {
		t.Errorf("without time: %v\n%s", err, out)
	}
	for i := range 2 {
		out, err := script("540")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if did := strings.Contains(out, "longcontext: train-samba"); did != (i == 0) {
			t.Errorf("call %d:\n%s", i, out)
		}
	}
	for _, file := range []string{"ppl.md", "ppl.png", "samba/eval/ppl/lengths.csv", "mamba/metrics.jsonl",
		"llama-passkey/eval/passkey/heat.png", "speed-quickstart.log"} {
		if info, err := os.Stat(filepath.Join(runs, "results", file)); err != nil || info.Size() == 0 {
			t.Errorf("results: %s: %v", file, err)
		}
	}
}

// TestDocs checks that the page's tables agree with the measurements stored next to the page.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/long-context.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin, copied := build(t, dir), filepath.Join(dir, "long-context.md")
	if err := os.WriteFile(copied, page, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "long-context/speed"), os.DirFS("../../docs/long-context/speed")); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("./run.sh", "docs")
	c.Env = append(os.Environ(), "BIN="+bin, "PAGE="+copied, "OUT="+filepath.Join(dir, "none"), "RUNS="+filepath.Join(dir, "runs"))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	written, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != string(page) {
		t.Errorf("docs/long-context.md has other tables than those of docs/long-context/speed; write them with scripts/longcontext/run.sh docs")
	}
	for _, name := range []string{"prompts", "decode-16", "decode-1"} {
		if info, err := os.Stat(filepath.Join(dir, "long-context/speed-"+name+".png")); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
