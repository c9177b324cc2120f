package train

import (
	"fmt"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cuda"
	"github.com/sambatrain/sambatrain/internal/dist"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// gpuAlone returns a GPU in an NCCL communicator of its own.
func gpuAlone(t *testing.T) (*cuda.Device, graph.Comm) {
	t.Helper()
	dev, err := cuda.New(0)
	if err != nil {
		t.Skip(err)
	}
	var comm graph.Comm
	err = dev.Within(func() (err error) {
		comm, err = dist.NewNCCL(dist.Topology{Size: 1}, nil)
		return err
	})
	if err != nil {
		t.Skip(err)
	}
	return dev, comm
}

// TestNCCLOfOne trains on a GPU that makes all calls of a multi-process run, which with one process
// only copy, and compares it with a GPU that makes none. Everything else is as with several
// processes: gathers and reductions concurrent with the kernels, in captured graphs.
func TestNCCLOfOne(t *testing.T) {
	for _, mixed := range []bool{false, true} {
		for _, micro := range []int{8, 2} {
			t.Run(fmt.Sprintf("mixed %v, micro-batches of %d", mixed, micro), func(t *testing.T) {
				dev, err := cuda.New(0)
				if err != nil {
					t.Skip(err)
				}
				want, err := trainOn(dev, nil, recipes.ShardNone, micro, mixed)
				if err != nil {
					t.Fatal(err)
				}
				if err := dev.Close(); err != nil {
					t.Fatal(err)
				}
				for _, shard := range recipes.Shards {
					dev, comm := gpuAlone(t)
					got, err := trainOn(dev, comm, shard, micro, mixed)
					if err != nil {
						t.Fatalf("shard %s: %v", shard, err)
					}
					times := 1.0
					if mixed {
						times = 500 // the last bit of a norm decides how a weight is rounded to bfloat16
					}
					if err := got.near(want, times); err != nil {
						t.Errorf("shard %s: %v", shard, err)
					}
					if err := dev.Leave(); err != nil {
						t.Error(err)
					}
					if err := dev.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

func trainOn(dev graph.Device, comm graph.Comm, shard string, micro int, mixed bool) (*trained, error) {
	decayed := optim.DecayAll
	if micro < 8 {
		decayed = optim.DecayMatrices
	}
	return trainShare(dev, EngineConfig{MicroBatch: micro, SeqLen: 24, Comm: comm, Shard: shard, Precision: layers.Precision{Mixed: mixed}, bucket: 3000}, decayed)
}
