package train

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
)

// wide has products large enough to be split among workers.
func wide() *layers.Model {
	m := samba()
	m.VocabSize, m.DModel, m.MLP.DFF = 307, 64, 160
	return m
}

// TestThreads trains with 1, 2 and 3 workers: every bit of the parameters, moments, losses and
// norms must agree.
func TestThreads(t *testing.T) {
	const rows, seq = 4, 48
	type outcome struct {
		losses, norms   []float64
		params, moments map[string][]float32
	}
	trained := func(t *testing.T, threads int) (o outcome) {
		e := engine(t, device(t, threads), wide(), adamw(), rows/2, seq, true)
		for step := range int64(3) {
			tokens, targets := batch(uint64(step), rows, seq, 307)
			loss, norm, err := e.Step(step, 3, tokens, targets)
			if err != nil {
				t.Fatal(err)
			}
			o.losses, o.norms = append(o.losses, loss), append(o.norms, norm)
		}
		o.params, o.moments = region(t, e, graph.Params), region(t, e, graph.ExpAvgSq)
		return o
	}
	want := trained(t, 1)
	if want.losses[2] >= want.losses[0] {
		t.Errorf("the loss does not fall: %v", want.losses)
	}
	for _, threads := range []int{2, 3} {
		got := trained(t, threads)
		if !slices.Equal(got.losses, want.losses) || !slices.Equal(got.norms, want.norms) {
			t.Errorf("%d threads: losses %v, norms %v; one thread: %v, %v", threads, got.losses, got.norms, want.losses, want.norms)
		}
		if diff := sameBits(got.params, want.params); diff != "" {
			t.Errorf("%d threads: parameters: %s", threads, diff)
		}
		if diff := sameBits(got.moments, want.moments); diff != "" {
			t.Errorf("%d threads: second moments: %s", threads, diff)
		}
	}
}

// TestAccumulation trains on 8 rows at once and on 4 micro-batches of 2.
func TestAccumulation(t *testing.T) {
	const rows, seq, steps = 8, 24, 3
	// With a large eps a gradient that is only rounding error doesn't become a full step.
	o := adamw()
	o.Eps = 1e-2
	dev := device(t, 2)
	trained := func(micro int) (e *Engine, losses, norms []float64) {
		e = engine(t, dev, samba(), o, rows/micro, seq, micro > 1)
		for step := range int64(steps) {
			tokens, targets := batch(uint64(step), rows, seq, 61)
			loss, norm, err := e.Step(step, steps, tokens, targets)
			if err != nil {
				t.Fatal(err)
			}
			losses, norms = append(losses, loss), append(norms, norm)
		}
		return e, losses, norms
	}
	whole, wantLoss, wantNorm := trained(1)
	split, loss, norm := trained(4)
	for i := range loss {
		if d := math.Abs(loss[i]-wantLoss[i]) / wantLoss[i]; !(d <= 1e-6) {
			t.Errorf("step %d: loss %v in parts, %v at once", i, loss[i], wantLoss[i])
		}
		if d := math.Abs(norm[i]-wantNorm[i]) / wantNorm[i]; !(d <= 1e-5) {
			t.Errorf("step %d: norm %v in parts, %v at once", i, norm[i], wantNorm[i])
		}
	}
	for _, r := range []graph.Region{graph.Params, graph.ExpAvg, graph.ExpAvgSq} {
		if d, name := furthest(region(t, split, r), region(t, whole, r)); !(d <= 2e-5) {
			t.Errorf("%v: %s differs by %.1e", r, name, d)
		}
	}
	again, loss2, norm2 := trained(4)
	if !slices.Equal(loss, loss2) || !slices.Equal(norm, norm2) {
		t.Errorf("the second time: losses %v and %v, norms %v and %v", loss, loss2, norm, norm2)
	}
	if diff := sameBits(region(t, split, graph.Params), region(t, again, graph.Params)); diff != "" {
		t.Errorf("the second time: %s", diff)
	}
}

// TestStepAllocatesNothing counts after one step, which may set things up.
func TestStepAllocatesNothing(t *testing.T) {
	const seq = 16
	for _, threads := range []int{1, 2} {
		for _, micro := range []int{1, 2} {
			t.Run(fmt.Sprintf("threads=%d/micro=%d", threads, micro), func(t *testing.T) {
				e := engine(t, device(t, threads), samba(), adamw(), 2, seq, micro > 1)
				tokens, targets := batch(1, 2*micro, seq, 61)
				step := int64(0)
				one := func() {
					if _, _, err := e.Step(step, 100, tokens, targets); err != nil {
						t.Fatal(err)
					}
					step++
				}
				one()
				if n := testing.AllocsPerRun(10, one); n != 0 {
					t.Errorf("%v allocations per step", n)
				}
				eval, err := e.NewEvaluator(2, seq)
				if err != nil {
					t.Fatal(err)
				}
				evaluate := func() {
					if _, err := eval.Run(tokens[:2*seq], targets[:2*seq]); err != nil {
						t.Fatal(err)
					}
				}
				if n := testing.AllocsPerRun(10, evaluate); n != 0 {
					t.Errorf("%v allocations an evaluation", n)
				}
			})
		}
	}
}

// TestInit: a parameter depends only on the seed, its name and its shape.
func TestInit(t *testing.T) {
	draw := func(threads int, m *layers.Model, b, seq int, seed uint64) map[string][]float32 {
		e, err := NewEngine(device(t, threads), m, adamw(), EngineConfig{MicroBatch: b, SeqLen: seq})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Init(seed); err != nil {
			t.Fatal(err)
		}
		return region(t, e, graph.Params)
	}
	want := draw(1, samba(), 1, 8, 7)
	if diff := sameBits(draw(2, samba(), 3, 16, 7), want); diff != "" {
		t.Errorf("other threads and rows: %s", diff)
	}
	other := draw(1, samba(), 1, 8, 8)
	for _, name := range []string{"model.embeddings.weight", "model.layers.0.mixer.in_proj.weight", "model.layers.4.mixer.q_proj.weight"} {
		if sameBits(map[string][]float32{"": want[name]}, map[string][]float32{"": other[name]}) == "" {
			t.Errorf("%s is the same for another seed", name)
		}
	}
	if slices.Equal(want["model.layers.2.mixer.k_proj.weight"], want["model.layers.2.mixer.v_proj.weight"]) {
		t.Error("k_proj and v_proj, of one shape, hold the same numbers")
	}
	if slices.Equal(want["model.layers.1.mixer.up_proj.weight"], want["model.layers.3.mixer.up_proj.weight"]) {
		t.Error("two layers' up_proj hold the same numbers")
	}
	// Another model: what comes before and after a parameter must not matter. Output projections
	// are excluded, because their spread depends on the number of sublayers.
	longer := samba()
	longer.Layers.Pattern = pattern("mamba", "mlp", "mlp", "mlp", "attn", "mlp", "mamba")
	got := draw(1, longer, 1, 8, 7)
	for _, name := range []string{"model.embeddings.weight", "model.layers.0.mixer.in_proj.weight", "model.layers.0.mixer.dt_proj.bias", "model.layers.1.mixer.gate_proj.weight", "model.layers.4.mixer.k_proj.weight"} {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s depends on the other layers", name)
		}
	}
}

// TestStepRefuses: anything but complete micro-batches is an error, and changes nothing.
func TestStepRefuses(t *testing.T) {
	e := engine(t, device(t, 1), samba(), adamw(), 2, 8, false)
	before := region(t, e, graph.Params)
	for name, n := range map[string][2]int{
		"no tokens": {0, 0}, "half a micro-batch": {8, 8}, "fewer targets": {16, 8}, "one and a half": {24, 24},
	} {
		if _, _, err := e.Step(0, 1, make([]int32, n[0]), make([]int32, n[1])); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if diff := sameBits(region(t, e, graph.Params), before); diff != "" {
		t.Error(diff)
	}
	// Without memory for a sum, several micro-batches are an error too.
	tokens, targets := batch(1, 4, 8, 61)
	if _, _, err := e.Step(0, 1, tokens, targets); err == nil || !strings.Contains(err.Error(), "Accumulate") {
		t.Errorf("two micro-batches without accumulation: %v", err)
	}
}

// TestRestore restores a snapshot in another engine: both must continue identically.
func TestRestore(t *testing.T) {
	const rows, seq = 2, 16
	dir := t.TempDir()
	lock, err := checkpoint.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	dev := device(t, 1)
	a := engine(t, dev, samba(), adamw(), rows, seq, false)
	tokens, targets := batch(1, rows, seq, 61)
	for step := range int64(2) {
		if _, _, err := a.Step(step, 4, tokens, targets); err != nil {
			t.Fatal(err)
		}
	}
	model, moments, err := a.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Save(checkpoint.State{Step: 2, CodeVersion: "test", RecipeSHA256: checkpoint.RecipeSHA256(nil)}, model, moments); err != nil {
		t.Fatal(err)
	}
	c, _, err := checkpoint.Newest(dir)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewEngine(dev, samba(), adamw(), EngineConfig{MicroBatch: rows, SeqLen: seq})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Restore(c); err != nil {
		t.Fatal(err)
	}
	for step := int64(2); step < 4; step++ {
		for _, e := range []*Engine{a, b} {
			if _, _, err := e.Step(step, 4, tokens, targets); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, r := range []graph.Region{graph.Params, graph.ExpAvg, graph.ExpAvgSq} {
		if diff := sameBits(region(t, a, r), region(t, b, r)); diff != "" {
			t.Errorf("%v: %s", r, diff)
		}
	}
	// Another model must not accept it.
	narrow := samba()
	narrow.MLP.DFF = 40
	e := engine(t, dev, narrow, adamw(), rows, seq, false)
	if err := e.Restore(c); err == nil || !strings.Contains(err.Error(), "shape is [48 32] in the checkpoint, [40 32] in this run") {
		t.Errorf("a checkpoint of another model: %v", err)
	}
}

// TestLogits: the cross-entropy of the parallel logits is the loss that training and evaluation
// report.
func TestLogits(t *testing.T) {
	const rows, seq = 2, 16
	e := engine(t, device(t, 1), samba(), adamw(), rows, seq, false)
	tokens, targets := batch(1, rows, seq, 61)
	logits, err := e.Logits(tokens)
	if err != nil {
		t.Fatal(err)
	}
	eval, err := e.NewEvaluator(rows, seq)
	if err != nil {
		t.Fatal(err)
	}
	nll, err := eval.Run(tokens, targets)
	if err != nil {
		t.Fatal(err)
	}
	mean := 0.0
	for i, target := range targets {
		row := logits[i*61 : (i+1)*61]
		sum := 0.0
		for _, x := range row {
			sum += math.Exp(float64(x))
		}
		want := math.Log(sum) - float64(row[target])
		if !(math.Abs(float64(nll[i])-want) <= 1e-5) {
			t.Errorf("token %d: cross-entropy %v, from the logits %v", i, nll[i], want)
		}
		mean += want / float64(len(targets))
	}
	loss, err := e.Forward(tokens, targets)
	if err != nil || !(math.Abs(loss-mean) <= 1e-5) {
		t.Errorf("loss %v, from the logits %v (%v)", loss, mean, err)
	}
}
