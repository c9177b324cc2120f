package graph_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
)

// carrying is a plan with a state of n numbers and a cache of so many positions, of 2 x 3 numbers
// each, for each row.
func carrying(t *testing.T, rows, n, positions, width int) *graph.Plan {
	t.Helper()
	b := newBuilder()
	b.Scope("cache", func() { b.State("key", rows, positions, 2, width) })
	b.State("state", rows, n)
	b.Result("y", b.Apply(scale(2), b.Input("x", graph.Float32, 1, 1, 1)))
	return compile(t, b)
}

// TestTakeState: a text's states are copied from row to row; of a cache, what fits.
func TestTakeState(t *testing.T) {
	small, large := carrying(t, 2, 5, 4, 3), carrying(t, 3, 5, 10, 3)
	at := func(p *graph.Plan, name string) int { return 4 * p.States[name].Offset }
	const position, state = 4 * 2 * 3, 4 * 5
	for _, c := range []struct {
		name                     string
		to, from                 *graph.Plan
		positions, fromPositions int
	}{{"to a larger cache", large, small, 10, 4}, {"to a smaller one", small, large, 4, 10}} {
		got, err := c.to.TakeState(1, c.from, 0)
		if err != nil {
			t.Fatal(err)
		}
		want := []graph.StateCopy{
			{To: at(c.to, "cache.key") + c.positions*position, From: at(c.from, "cache.key"), Bytes: 4 * position},
			{To: at(c.to, "state") + state, From: at(c.from, "state"), Bytes: state},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: copies (-want +got):\n%s", c.name, diff)
		}
	}
	for _, c := range []struct {
		to, from     *graph.Plan
		row, fromRow int
		want         string
	}{
		{small, large, 2, 0, "state cache.key: no row 2 of 2 to take row 0 of 3"},
		{small, large, -1, 0, "no row -1 of 2"},
		{small, large, 0, 3, "to take row 3 of 3"},
		{small, carrying(t, 2, 5, 4, 2), 0, 0, "state cache.key: float32 [2 4 2 2] does not fit float32 [2 4 2 3]"},
		{small, compile(t, newBuilder()), 0, 0, "state cache.key is in one plan only"},
		{compile(t, newBuilder()), small, 0, 0, "is in one plan only"},
	} {
		_, err := c.to.TakeState(c.row, c.from, c.fromRow)
		wantError(t, err, c.want)
	}
	if err := small.SameStates(carrying(t, 2, 5, 4, 3)); err != nil {
		t.Error(err)
	}
	wantError(t, small.SameStates(large), "float32 [2 4 2 3] at", "float32 [3 10 2 3] at")
}
