package cluster

import (
	"os"
	"strings"
	"testing"
)

// TestDocs checks that docs/cluster.md shows the files exactly as they are run.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	for file, language := range map[string]string{"train.sbatch": "bash", "jobset.yaml": "yaml", "trainjob.yaml": "yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page), "\n```"+language+"\n"+string(text)+"```\n") {
			t.Errorf("docs/cluster.md does not show %s as it is", file)
		}
	}
}
