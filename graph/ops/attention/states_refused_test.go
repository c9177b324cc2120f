package attention_test

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/attention"
	"github.com/sambatrain/sambatrain/graph/ops/rope"
)

func TestStatesRefused(t *testing.T) {
	c := attention.Config{Heads: 2, KVHeads: 1, HeadDim: 4, Window: 4}
	turn := attention.Rotation{Turn: rope.CarrySpec(4, 500), Base: 500}
	for _, x := range []struct {
		spec   *graph.Spec
		tokens int
		slots  int
		want   string
	}{
		{attention.CarrySpec(c), 1, 5, "window is 4 and the key and value states hold 5"},
		{attention.CarrySpec(c), 1, 3, "window is 4 and the key and value states hold 3"},
		{attention.KeepSpec(c), 9, 5, "window is 4 and the key and value states hold 5"},
		{attention.RotaryCarrySpec(c, turn), 2, 4, "2 tokens of a row"},
	} {
		_, err := x.spec.ResolveDims(graph.Dims{"B": 1, "T": x.tokens, "W": x.slots})
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s, %d tokens, %d slots: %v, want %q", x.spec.Name, x.tokens, x.slots, err, x.want)
		}
	}
}
