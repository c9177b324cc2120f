package optim_test

import (
	"math"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/optim"
)

// slots returns a layout of n parameters, and which of them are matrices.
func slots() (params []graph.ParamSlot, matrices map[string]bool) {
	at := 0
	for _, p := range []graph.ParamSlot{
		{Name: "model.embeddings.weight", Shape: graph.Shape{30, 17}},
		{Name: "model.layers.0.norm.weight", Shape: graph.Shape{17}},
		{Name: "model.layers.0.mixer.conv1d.weight", Shape: graph.Shape{9, 1, 4}},
		{Name: "model.layers.0.mixer.A_log", Shape: graph.Shape{9, 5}},
		{Name: "model.layers.0.mixer.x_proj.weight", Shape: graph.Shape{7, 9}},
		{Name: "model.layers.0.mixer.out_proj.weight", Shape: graph.Shape{400, 300}},
		{Name: "model.layers.0.mixer.gamma", Shape: graph.Shape{2, 8}},
		{Name: "model.norm_f.weight", Shape: graph.Shape{17}},
	} {
		p.Offset = at
		at += (p.Shape.Size() + 15) / 16 * 16
		params = append(params, p)
	}
	// Not in the order of the layout, as when a plan sorts them by the type that they are read in.
	slices.Reverse(params)
	return params, map[string]bool{"model.embeddings.weight": true, "model.layers.0.mixer.x_proj.weight": true, "model.layers.0.mixer.out_proj.weight": true}
}

// TestDecayed: with `decayed: matrices` the matrices are updated as with `all`, and the others as
// without decay, bit for bit.
func TestDecayed(t *testing.T) {
	params, matrices := slots()
	trained := func(o optim.AdamW, mixed bool) *machine {
		m := newMachineOf(t, 2, o, params, mixed)
		m.train(t, 1)
		return m
	}
	all, none, some := settings(1), settings(1), settings(1)
	none.WeightDecay, some.Decayed = 0, optim.DecayMatrices
	decayed, kept := trained(all, false), trained(none, false)
	for _, mixed := range []bool{false, true} {
		got := trained(some, mixed)
		x, with, without := got.read(t, graph.Params), decayed.read(t, graph.Params), kept.read(t, graph.Params)
		for _, p := range params {
			want := without
			if matrices[p.Name] {
				want = with
			}
			from, to := p.Offset, p.Offset+p.Shape.Size()
			if !slices.EqualFunc(x[from:to], want[from:to], sameBits) {
				t.Errorf("mixed %v: %s is not updated as it should be", mixed, p.Name)
			}
			if slices.EqualFunc(with[from:to], without[from:to], sameBits) {
				t.Errorf("decay makes no difference to %s", p.Name)
			}
		}
		for _, r := range []graph.Region{graph.ExpAvg, graph.ExpAvgSq} {
			if !slices.EqualFunc(got.read(t, r), decayed.read(t, r), sameBits) {
				t.Errorf("mixed %v: %v depends on decay", mixed, r)
			}
		}
		if !mixed {
			continue
		}
		shadow := make([]float32, n/2)
		if err := got.mem.Read(graph.Shadow, 0, shadow); err != nil {
			t.Fatal(err)
		}
		for i, pair := range shadow {
			low := math.Float32frombits(math.Float32bits(pair) << 16)
			if d := math.Abs(float64(low - x[2*i])); !(d <= math.Abs(float64(x[2*i]))/256) {
				t.Fatalf("the bfloat16 copy of parameter %d is %v, not %v", 2*i, low, x[2*i])
			}
		}
	}
	if _, err := some.Build(nil, n, false, optim.Shard{}); err == nil {
		t.Error("parameters without names are accepted")
	}
}

// TestDecayedShards: where the layout is cut into runs, every element is updated once, by the
// process that owns it, with its own moments.
func TestDecayedShards(t *testing.T) {
	params, _ := slots()
	o := settings(1)
	o.Decayed = optim.DecayMatrices
	for processes := 1; processes <= 3; processes++ {
		for _, full := range []bool{false, true} {
			for _, mixed := range []bool{false, true} {
				updates := map[int]string{} // how each element is updated
				buckets := graph.NewBuckets(n, 40_000, processes)
				for rank := range processes {
					shard := optim.Shard{Rank: rank, Size: processes, Buckets: buckets, Full: full}
					plan, err := o.Build(params, buckets.Length, mixed, shard)
					if err != nil {
						t.Fatal(err)
					}
					local := map[int]int{} // where an element of this shard's regions is in the whole layout
					shard.Pieces(func(at, moment, n int) {
						for i := range n {
							local[moment+i] = at + i
						}
					})
					for _, s := range plan.Steps {
						if s.Spec.Name != "adamw" && s.Spec.Name != "adamw_mixed" {
							continue
						}
						in := s.In[len(s.In)-6:]
						for i := range in[0].Cols {
							at := local[in[2].Offset+i]
							if p := in[0].Offset + i; full && p != in[2].Offset+i || !full && p != at {
								t.Fatalf("parameter %d has the moments of %d", p, at)
							}
							updates[at] += s.Spec.Name
						}
					}
				}
				name := map[bool]string{false: "adamw", true: "adamw_mixed"}[mixed && full]
				for i := range buckets.Length {
					if updates[i] != name {
						t.Fatalf("%d processes, full %v, mixed %v: element %d is updated by %q, want %s", processes, full, mixed, i, updates[i], name)
					}
				}
			}
		}
	}
}
