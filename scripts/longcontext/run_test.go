// Package longcontext_test tries the script that makes the measurements of
// docs/long-context.md.
package longcontext_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRun runs all stages on models of a few thousand parameters, twice: the second time
// there is nothing left to do.
func TestRun(t *testing.T) {
	for _, program := range []string{"bash", "timeout", "go"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s: %v", program, err)
		}
	}
	dir := t.TempDir()
	bin, runs := filepath.Join(dir, "sambatrain"), filepath.Join(dir, "runs")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/sambatrain").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
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
