package train

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// oneOfMany is one of several processes, of which nobody runs anything.
type oneOfMany struct {
	ofMany
	rank int
}

func (c oneOfMany) Rank() int { return c.rank }

// TestHeld: of what all processes have, each tensor is written by one of them, and each of them
// writes about as much.
func TestHeld(t *testing.T) {
	const processes = 3
	plan := trainPlanOf(t, samba(), EngineConfig{MicroBatch: 1, SeqLen: 8})
	total, largest := 0, 0
	for _, p := range plan.Params {
		total += p.Shape.Size()
		largest = max(largest, p.Shape.Size())
	}
	writers := map[string]int{}
	for rank := range processes {
		e := &Engine{params: plan.Params, comm: oneOfMany{ofMany{size: processes}, rank}}
		bytes := 0
		e.held(graph.Params, func(i, from, n, at int) {
			p := plan.Params[i]
			if from != 0 || n != p.Shape.Size() || at != p.Offset {
				t.Errorf("%s is written from element %d on, %d of them, from %d", p.Name, from, n, at)
			}
			writers[p.Name]++
			bytes += n
		})
		if share := total / processes; bytes < share-largest || bytes > share+largest {
			t.Errorf("process %d writes %d of %d elements", rank, bytes, total)
		}
	}
	for _, p := range plan.Params {
		if n := writers[p.Name]; n != 1 {
			t.Errorf("%d processes write %s", n, p.Name)
		}
	}
}
