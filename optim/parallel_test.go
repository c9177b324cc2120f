package optim_test

import (
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/optim"
)

// TestReductionOps: a sharded optimizer needs only its pieces of a sum, and gradients are sent in
// the type that was asked for.
func TestReductionOps(t *testing.T) {
	buckets := graph.NewBuckets(700, 300, 2)
	for _, bfloat16 := range []bool{false, true} {
		for sharded, want := range map[bool]string{false: "all_reduce", true: "reduce_scatter"} {
			r := optim.Reduction(buckets, sharded, bfloat16)
			if r.Op.Name != want || (r.Round != nil) != bfloat16 {
				t.Errorf("sharded %v, bfloat16 %v: %s, rounded %v", sharded, bfloat16, r.Op.Name, r.Round != nil)
			}
		}
		if s := optim.Sharding(2, bfloat16, nil); (s.Round != nil) != bfloat16 || s.Processes != 2 {
			t.Errorf("bfloat16 %v: %d processes, rounded %v", bfloat16, s.Processes, s.Round != nil)
		}
	}
}

// TestShardedUpdate: a sharded update sends what it has updated while it updates more, in mixed
// precision and for any number of processes.
func TestShardedUpdate(t *testing.T) {
	for _, processes := range []int{1, 2, 3} {
		shard := optim.Shard{Rank: processes - 1, Size: processes, Buckets: graph.NewBuckets(700, 300, processes)}
		plan, err := optim.DefaultAdamW().Build(nil, shard.Buckets.Length, true, shard)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range plan.Steps {
			if s.Spec.Name == "adamw" || s.Spec.Name == "all_gather" || s.Spec.Name == "cast_weights" {
				got = append(got, s.Spec.Name)
			}
		}
		want := []string{"adamw", "all_gather"}
		for range shard.Buckets.Count() - 1 {
			want = append(want, "adamw", "all_gather", "cast_weights")
		}
		if want = append(want, "cast_weights"); !slices.Equal(got, want) {
			t.Errorf("%d processes: %v, want %v", processes, got, want)
		}
	}
}
