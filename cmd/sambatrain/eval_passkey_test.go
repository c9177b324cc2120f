package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sambatrain/sambatrain/internal/evaluate"
)

// TestReportPasskeyStopped: a measurement that was stopped reports the cells that it has, in the
// table and in the picture.
func TestReportPasskeyStopped(t *testing.T) {
	var out bytes.Buffer
	c, dir := &cobra.Command{}, t.TempDir()
	c.SetOut(&out)
	f := evalFlags{format: "svg", output: outputText}
	r := &evaluate.Retrieval{Cells: []evaluate.Cell{
		{Length: 512, Depth: 0, Asked: 4, Right: 3}, {Length: 512, Depth: 0.5, Asked: 4, Right: 1}, {Length: 512, Depth: 1, Asked: 4, Right: 4},
		{Length: 1024, Depth: 0, Asked: 4, Right: 2},
	}}
	if err := f.reportPasskey(c, "tiny", dir, []float64{0, 0.5, 1}, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"512     12  66.7%    0.5 (25%)\n", "1k      4  50.0%      0 (50%)\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	picture, err := os.ReadFile(filepath.Join(dir, "heat.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">1k<", ">25<", ">50<"} {
		if !bytes.Contains(picture, []byte(want)) {
			t.Errorf("the picture has no %s", want)
		}
	}
}
