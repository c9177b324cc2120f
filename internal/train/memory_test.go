package train

import (
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/recipes"
)

// TestMemory: a model that the machine can't hold is an error, not the end of the program.
func TestMemory(t *testing.T) {
	m := samba()
	m.MLP.DFF = 1 << 30
	dev := device(t, 1)
	if free, err := dev.FreeMemory(); free == 0 {
		t.Skip("the machine's memory is unknown here", err)
	}
	_, err := NewEngine(dev, m, adamw(), EngineConfig{MicroBatch: 1, SeqLen: 8})
	if err == nil || !strings.Contains(err.Error(), "GB of memory") {
		t.Errorf("%v", err)
	}
}

// TestPersistentBytes: what each of several processes keeps between steps, per parameter: weights and
// gradients of 4 bytes, two moments, in mixed precision a copy of 2 bytes, and on a host the copy for
// checkpoints.
func TestPersistentBytes(t *testing.T) {
	const n = 1 << 20
	for _, c := range []struct {
		shard         string
		mixed, copies bool
		processes     int
		want          int64 // per 4 parameters
	}{
		{"", false, false, 1, 64}, {"", true, false, 1, 72}, {"", false, true, 1, 112},
		{recipes.ShardNone, true, false, 4, 72}, {recipes.ShardNone, false, true, 4, 76},
		{recipes.ShardOptimizer, false, false, 4, 40}, {recipes.ShardOptimizer, true, false, 4, 48},
		{recipes.ShardFull, false, false, 4, 16}, {recipes.ShardFull, true, false, 4, 18}, {recipes.ShardFull, false, true, 4, 28},
	} {
		e := EngineConfig{Precision: layers.Precision{Mixed: c.mixed}, Shard: c.shard, copyOnDevice: c.copies}
		if c.processes > 1 {
			e.Comm = ofMany{size: c.processes}
		}
		if got := e.persistentBytes(n); got != c.want*n/4 {
			t.Errorf("%+v: %d bytes, want %d", c, got, c.want*n/4)
		}
	}
}

// TestRepeatedLast: on a GPU, products and ops limited by memory bandwidth are recomputed before
// scans and attention, which take longest for the memory they save.
func TestRepeatedLast(t *testing.T) {
	r, err := recipes.Load("samba-421m", "train.batch_size=8", "train.micro_batch=8")
	if err != nil {
		t.Fatal(err)
	}
	c := ConfigOf(r)
	c.Mixed = true
	for budget, last := range map[int64]bool{18e9: false, 12e9: true} {
		c.MemoryBudget = budget
		plan, err := TrainPlan(&r.Model, c)
		if err != nil {
			t.Fatal(err)
		}
		again := plan.Repeated()
		for name, want := range map[string]bool{"swiglu": true, "causal_conv": true, "linear": true,
			"rms_norm": false, "selective_scan": last, "attention_rotary": last} {
			if (again[name] > 0) != want {
				t.Errorf("within %d bytes: %d calls of %s computed again", budget, again[name], name)
			}
		}
	}
}

// TestMemoryBudget: a step that recomputes activations takes less memory and gives the same bits.
func TestMemoryBudget(t *testing.T) {
	const rows, seq, steps = 4, 48, 3
	for _, mixers := range [][]string{
		{"mamba", "mlp", "swa", "mlp", "attn", "mlp"}, {"gla", "mlp", "retention", "mlp"}, {"mega", "mlp", "mega", "mlp"},
	} {
		m := samba()
		m.Layers.Pattern = pattern(mixers...)
		m.GLA.Heads, m.Retention.Heads, m.Mega.Chunk, m.Mega.ZDim = 2, 2, 16, 16
		c := EngineConfig{MicroBatch: rows, SeqLen: seq}
		plan, err := TrainPlan(m, c)
		if err != nil {
			t.Fatal(err)
		}
		arena := 4 * int64(plan.Sizes[graph.Arena])
		persistent := c.persistentBytes(int64(plan.Sizes[graph.Params]))
		trained := func(budget int64) (map[string][]float32, []float64) {
			c.MemoryBudget = budget
			plan, err := TrainPlan(m, c)
			if err != nil {
				t.Fatalf("%v: %v", mixers, err)
			}
			again := 0
			for _, s := range plan.Steps {
				if s.Again {
					again++
				}
			}
			if got := persistent + 4*int64(plan.Sizes[graph.Arena]); got > budget || (again > 0) != (budget < persistent+arena) {
				t.Errorf("%v: a plan of %d bytes with %d calls repeated for a budget of %d", mixers, got, again, budget)
			}
			e, err := NewEngine(device(t, 2), m, adamw(), c)
			if err != nil {
				t.Fatal(err)
			}
			if err := e.Init(1); err != nil {
				t.Fatal(err)
			}
			var losses []float64
			for step := range int64(steps) {
				tokens, targets := batch(uint64(step), rows, seq, 61)
				loss, norm, err := e.Step(step, steps, tokens, targets)
				if err != nil {
					t.Fatal(err)
				}
				losses = append(losses, loss, norm)
			}
			return region(t, e, graph.Params), losses
		}
		params, losses := trained(persistent + arena)
		for _, part := range []float64{0.9, 0.75, 0.6} {
			tightParams, tightLosses := trained(persistent + int64(part*float64(arena)))
			if !slices.Equal(losses, tightLosses) {
				t.Errorf("%v, %v of the arena: losses and norms %v, want %v", mixers, part, tightLosses, losses)
			}
			if diff := sameBits(tightParams, params); diff != "" {
				t.Errorf("%v, %v of the arena: %s", mixers, part, diff)
			}
		}
		for budget, want := range map[int64]string{
			persistent:                 "gradients and moments alone take",
			persistent + 1000:          "lower train.micro_batch or data.seq_len",
			persistent + arena/10 - 64: "even with all activations recomputed",
		} {
			c.MemoryBudget = budget
			if _, err := TrainPlan(m, c); err == nil || !strings.HasPrefix(err.Error(), "run.memory_budget: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: a budget of %d: %v", mixers, budget, err)
			}
		}
	}
}
