package train

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// ofMany is one of `size` processes, for plans that nobody runs.
type ofMany struct {
	graph.Comm
	size int
}

func (c ofMany) Size() int { return c.size }

// TestShardedPlan: a step with sharded parameters gathers each bucket at most twice, in the forward
// and in the backward pass, ahead of its use; reduces each once; and lets reductions run
// concurrently with kernels. It needs less memory than one that has all parameters. For float32
// sublayers, no weights are gathered in bfloat16.
func TestShardedPlan(t *testing.T) {
	m := samba()
	m.Layers.Repeat = 3
	for _, precision := range []layers.Precision{{}, {Mixed: true}, {Mixed: true, Float32Sublayers: 3}} {
		t.Run(fmt.Sprintf("%+v", precision), func(t *testing.T) {
			c := EngineConfig{MicroBatch: 2, SeqLen: 24, Precision: precision, Comm: ofMany{size: 4}, Shard: recipes.ShardFull}
			p := trainPlanOf(t, m, c)
			checkPlan(t, p)
			rounded := 0
			if precision.Mixed {
				rounded = m.Depth() - precision.Float32Sublayers + 1 // and the embedding's, which is the head's
			}
			if got := roundedBuckets(p); got != rounded {
				t.Errorf("%d buckets are gathered in bfloat16, want %d", got, rounded)
			}
			c.Shard = recipes.ShardNone
			if got, want := size(p), size(trainPlanOf(t, m, c)); got >= want {
				t.Errorf("%d units of memory, %d where each process has it all", got, want)
			}
			c.Shard = recipes.ShardFull
			c.MemoryBudget = c.persistentBytes(int64(p.Buckets.Length)) + 3*int64(p.Sizes[graph.Arena])
			tight := trainPlanOf(t, m, c)
			checkPlan(t, tight)
			if !slices.ContainsFunc(tight.Steps, func(s graph.Step) bool { return s.Again }) {
				t.Error("nothing is computed again to keep within a budget")
			}
		})
	}
}

// roundedBuckets returns the number of buckets that a plan gathers in bfloat16.
func roundedBuckets(p *graph.Plan) int {
	places := map[int]bool{}
	for _, s := range p.Steps {
		if strings.HasPrefix(s.Spec.Name, "all_gather") && s.In[0].Region == graph.Shadow {
			places[s.In[0].Offset] = true
		}
	}
	return len(places)
}

// TestReduceBFloat16: gradients are rounded before they are sent, and kept in float32.
func TestReduceBFloat16(t *testing.T) {
	m := samba()
	m.Layers.Repeat = 3
	for _, shard := range recipes.Shards {
		for _, accumulate := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, accumulate %v", shard, accumulate), func(t *testing.T) {
				c := EngineConfig{MicroBatch: 2, SeqLen: 24, Precision: layers.Precision{Mixed: true}, Accumulate: accumulate, Comm: ofMany{size: 4}, Shard: shard, ReduceBFloat16: true, bucket: 3000}
				p := trainPlanOf(t, m, c)
				if shard == recipes.ShardFull {
					checkPlan(t, p)
				}
				reduced, kept := 0, 0
				for i, s := range p.Steps {
					switch s.Spec.Name {
					case "all_reduce", "reduce_scatter", "reduce_scatter_piece":
						reduced++
						if s.In[0].DType != graph.BFloat16 || s.Out[0].DType != graph.BFloat16 {
							t.Errorf("step %d sums %v to %v", i, s.In[0].DType, s.Out[0].DType)
						}
						continue
					}
					if len(s.Out) == 1 && s.Out[0].Region == graph.Grads && reads(s, graph.BFloat16) && (s.Spec.Name == "round" || s.Spec.Name == "add") {
						kept++
					}
				}
				if reduced == 0 || kept != reduced {
					t.Errorf("%d buckets are reduced, and %d come to the gradients\n%v", reduced, kept, p)
				}
			})
		}
	}
}

func reads(s graph.Step, t graph.DType) bool {
	return slices.ContainsFunc(s.In, func(in graph.Slot) bool { return in.DType == t })
}

func trainPlanOf(t *testing.T, m *layers.Model, c EngineConfig) *graph.Plan {
	t.Helper()
	p, err := TrainPlan(m, c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func checkPlan(t *testing.T, p *graph.Plan) {
	t.Helper()
	for _, r := range []graph.Region{graph.Params, graph.Grads} {
		if p.Sizes[r] != p.Buckets.Length/4 {
			t.Errorf("region %v has %d elements of %d", r, p.Sizes[r], p.Buckets.Length)
		}
	}
	checkGathers(t, p)
	checkReductions(t, p)
}

func size(p *graph.Plan) (n int) {
	for _, r := range []graph.Region{graph.Arena, graph.Params, graph.Grads, graph.Shadow} {
		n += p.Sizes[r]
	}
	return n
}

func checkGathers(t *testing.T, p *graph.Plan) {
	t.Helper()
	type place struct {
		region graph.Region
		offset int
	}
	count := map[place]int{}
	late := 0
	for i, s := range p.Steps {
		if s.Spec.Name != "all_gather_piece" {
			continue
		}
		count[place{s.In[0].Region, s.In[0].Offset}]++
		// The kernels between a gather and the first one that reads its result.
		ahead := 0
		for _, later := range p.Steps[i+1:] {
			if readsFrom(later, s.Out[0]) {
				break
			}
			if later.Spec.Name != "all_gather_piece" {
				ahead++
			}
		}
		if ahead == 0 {
			late++
		}
	}
	for from, n := range count {
		if n > 2 {
			t.Errorf("%v from %d on is gathered %d times", from.region, from.offset, n)
		}
	}
	// Only what the step starts with can't be gathered ahead.
	if late > 2 {
		t.Errorf("%d gathers are waited for at once\n%v", late, p)
	}
}

func readsFrom(s graph.Step, of graph.Slot) bool {
	for _, in := range s.In {
		if in.Overlaps(of) {
			return true
		}
	}
	return false
}

func checkReductions(t *testing.T, p *graph.Plan) {
	t.Helper()
	reduced := 0
	for i, s := range p.Steps {
		if s.Spec.Name != "reduce_scatter_piece" {
			continue
		}
		reduced++
		for _, later := range p.Steps[i+1:] {
			if later.Spec.Name == "reduce_scatter_piece" {
				break
			}
			for _, out := range later.Out {
				if out.Overlaps(s.In[0]) {
					t.Errorf("%s at %s writes over gradients that may still be on their way", later.Spec.Name, later.Path)
				}
			}
		}
	}
	if reduced != p.Buckets.Count() {
		t.Errorf("%d reductions of %d buckets", reduced, p.Buckets.Count())
	}
}
