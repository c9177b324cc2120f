package cluster

import (
	"os"
	"strings"
	"testing"
)

// TestDocs: docs/cluster.md shows the batch script as it is run.
func TestDocs(t *testing.T) {
	script, err := os.ReadFile("train.sbatch")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n```bash\n"+string(script)+"```\n") {
		t.Error("docs/cluster.md does not show train.sbatch as it is")
	}
}
