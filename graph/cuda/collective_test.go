//go:build linux

package cuda

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// TestSchedule: a kernel waits for the last call to other processes that accesses its memory, and
// thereby for the earlier ones; calls wait for none; and all are done at the end.
func TestSchedule(t *testing.T) {
	const a, b, c, d = 0, 100, 200, 300
	slot := func(offset int) graph.Slot { return graph.Slot{Offset: offset, Rows: 1, Cols: 100, Stride: 100} }
	halves := graph.Slot{Offset: b, Rows: 1, Cols: 200, Stride: 200, DType: graph.BFloat16} // as many bytes as b
	type step struct {
		in, out graph.Slot
		call    bool
	}
	list := []step{
		{slot(a), slot(a), false},
		{slot(a), slot(b), true},  // 1
		{slot(c), slot(c), false}, // concurrent with it
		{slot(c), slot(d), true},  // 3
		{slot(b), slot(d), true},  // 4: ordered with the others
		{halves, slot(a), false},  // needs what 1 and 4 access
		{slot(d), slot(b), false}, // waited for already
		{slot(c), slot(c), true},  // 7
		{halves, slot(d), false},  // concurrent with it
		{slot(a), slot(a), false},
	}
	plan := &graph.Plan{}
	var commands [][]command
	calls := map[*collective]int{}
	for i, s := range list {
		plan.Steps = append(plan.Steps, graph.Step{In: []graph.Slot{s.in}, Out: []graph.Slot{s.out}})
		if !s.call {
			commands = append(commands, []command{&kernel{}})
			continue
		}
		call := &collective{}
		calls[call] = i
		commands = append(commands, []command{call})
	}
	want := map[int]int{5: 4, len(list): 7}
	for i, w := range schedule(plan, commands) {
		call, waits := want[i]
		if waits != (w != nil) || waits && calls[w] != call {
			t.Errorf("step %d waits for %v, want %v (%v)", i, calls[w], call, waits)
		}
	}
}
