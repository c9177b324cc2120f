//go:build linux

package cuda

import (
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/argmax"
)

// TestTurns: a run reads the inputs that were written before it began, even if the host has written
// others since, and its int32 results are available while the next run is in progress. Inputs that
// are not written keep their values.
func TestTurns(t *testing.T) {
	d := open(t)
	const rows, vocab, runs = 3, 40, 200
	b := graph.NewBuilder(add.Spec)
	token := b.IntState("token", rows, 1)
	argmax.Apply(b, b.Input("scores", graph.Float32, rows, 1, vocab), token, vocab)
	b.Result("token", token)
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Load(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Ints("token", 0); err == nil {
		t.Error("integers before the first run")
	}
	scores := make([]float32, rows*vocab)
	var want [][]int32
	for i := range runs {
		if i%3 != 2 { // in every third run the scores keep their values
			clear(scores)
			var tokens []int32
			for row := range rows {
				tokens = append(tokens, int32((7*i+11*row)%vocab))
				scores[row*vocab+int(tokens[row])] = 1
			}
			want = append(want, tokens)
			if err := p.WriteFloats("scores", scores); err != nil {
				t.Fatal(err)
			}
		} else {
			want = append(want, want[i-1])
		}
		if err := p.Run(); err != nil {
			t.Fatal(err)
		}
		for back := range min(2, i+1) {
			if back == 0 && i%5 != 0 {
				continue // usually the run continues meanwhile
			}
			got, err := p.Ints("token", back)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want[i-back]) {
				t.Fatalf("run %d gives %v, want %v", i-back, got, want[i-back])
			}
		}
	}
	if _, err := p.Ints("token", 2); err == nil {
		t.Error("integers of a run long ago")
	}
	if _, err := p.Ints("scores", 0); err == nil {
		t.Error("integers of what is no result")
	}
	if err := p.Read("token", make([]float32, rows)); err == nil {
		t.Error("Read gives integers")
	}
}
