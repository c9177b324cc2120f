package train

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph/cpu/simd"
	"github.com/sambatrain/sambatrain/recipes"
)

var update = flag.Bool("update", false, "write the golden loss curves again, after a change of numerics")

// TestLossCurve checks the first losses of the quickstart's model bit for bit, on every instruction
// set of this machine. A refactoring leaves them unchanged; a change of numerics updates them with
// -update and explains why.
func TestLossCurve(t *testing.T) {
	r, err := recipes.Load("quickstart")
	if err != nil {
		t.Fatal(err)
	}
	const rows, seq, steps = 2, 64, 6
	for _, level := range simd.Levels() {
		t.Run(level.String(), func(t *testing.T) {
			path := filepath.Join("testdata", "losses", fmt.Sprintf("%s-%v.txt", runtime.GOARCH, level))
			want, err := os.ReadFile(path)
			if err != nil && !*update {
				t.Skipf("no golden losses for %s: %v", runtime.GOARCH, err)
			}
			restore := simd.Force(level)
			defer restore()
			e := engine(t, device(t, 2), &r.Model, r.Optim, rows, seq, false)
			var got strings.Builder
			for step := range int64(steps) {
				tokens, targets := batch(uint64(step), rows, seq, 256)
				loss, norm, err := e.Step(step, steps, tokens, targets)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&got, "%d loss %x norm %x\n", step, loss, norm)
			}
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(got.String()), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != string(want) {
				t.Errorf("the loss curve changed; with a reason, run go test ./internal/train -run TestLossCurve -update\ngot\n%swant\n%s", got.String(), want)
			}
		})
	}
}
