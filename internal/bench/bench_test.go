package bench

import (
	"encoding/json"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/recipes"
)

var quiet = slog.New(slog.DiscardHandler)

// tiny returns a Samba whose step has three micro-batches of two rows.
func tiny(t *testing.T) *recipes.Recipe {
	t.Helper()
	r, err := recipes.Parse([]byte(`
name: tiny
model:
  vocab_size: 272
  d_model: 32
  layers: {pattern: [mamba, mlp, swa, mlp]}
  attention: {heads: 2, window: 8}
  mlp: {d_ff: 64}
data: {shards: unused, seq_len: 16}
train: {steps: 10, batch_size: 6, micro_batch: 2}
run: {device: cpu, threads: 2}
`), "tiny.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRun checks the sums, not the speed.
func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	b, err := Run(tiny(t), Options{Steps: 3, Profile: dir, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	if b.Rows != 6 || b.MicroBatches != 3 || b.SeqLen != 16 || b.Steps != 3 || b.MinStepMS <= 0 || b.MinStepMS > b.StepMS || b.StepMS > b.MaxStepMS {
		t.Errorf("%+v", b)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if !(math.Abs(got-want) <= 1e-9*math.Abs(want)) {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	near("tokens/s", b.TokensPerSecond, 6*16/b.StepMS*1e3)
	near("MFU", b.MFU, b.ModelGFLOPs/b.Peak.GFLOPs)
	if b.Peak.Threads != 2 {
		t.Errorf("the peak is that of %d threads", b.Peak.Threads)
	}
	if m := b.Memory; m.Parameters == 0 || m.Gradients != m.Parameters || b.PeakRSS != 0 && b.PeakRSS < m.Total {
		t.Errorf("memory %+v, %d of the process", m, b.PeakRSS)
	}
	shares, ops := 0.0, map[string]Op{}
	for i, o := range b.Ops {
		shares += o.Share
		ops[o.Op] = o
		if i > 0 && o.MS > b.Ops[i-1].MS {
			t.Errorf("%s comes after %s, which is quicker", o.Op, b.Ops[i-1].Op)
		}
		near(o.Op+"'s share of the limit", o.PeakShare, b.Peak.Share(o.flops, o.bytes, o.MS/1e3))
	}
	near("the sum of shares", shares, 1)
	for op, n := range map[string]int{
		"selective_scan": 3, "selective_scan_backward": 3, "attention_rotary": 3, "attention_rotary_backward": 3, "embedding": 3,
		"grad_norm": 1, "adamw": 1,
	} {
		if ops[op].Calls != n {
			t.Errorf("%d calls of %s, want %d", ops[op].Calls, op, n)
		}
	}
	for _, f := range b.Files {
		if info, err := os.Stat(f); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	if want := []string{filepath.Join(dir, ProfileFile), filepath.Join(dir, TraceFile)}; !slices.Equal(b.Files, want) {
		t.Errorf("files are %v, want %v", b.Files, want)
	}
	checkTrace(t, filepath.Join(dir, TraceFile), b)
}

// checkTrace reads a trace as trace viewers do: it contains each call of a step, with its layer, on
// workers that do one thing at a time.
func checkTrace(t *testing.T, path string, b *Result) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var trace struct {
		TraceEvents []struct {
			Name, Cat, Ph string
			TS, Dur       float64
			PID, TID      int
			Args          map[string]any
		}
	}
	if err := json.Unmarshal(text, &trace); err != nil {
		t.Fatal(err)
	}
	lanes, ends := map[int]string{}, map[int]float64{}
	seen, layers := map[string]int{}, map[string]bool{}
	for _, e := range trace.TraceEvents {
		switch {
		case e.Ph == "M" && e.Name == "thread_name":
			lanes[e.TID] = e.Args["name"].(string)
			continue
		case e.Ph == "M":
			continue
		case e.Ph != "X" || e.Dur < 0:
			t.Errorf("%+v is no span", e)
		}
		const rounding = 1e-3 // of a floating-point time, in microseconds
		if e.TS < ends[e.TID]-rounding {
			t.Errorf("%s begins on lane %d at %v, before the span there ends at %v", e.Name, e.TID, e.TS, ends[e.TID])
		}
		ends[e.TID] = e.TS + e.Dur
		if e.TID == layerLane {
			layers[e.Cat+" "+e.Name] = true
			continue
		}
		seen[e.Name]++
		if e.Name == "selective_scan_backward" && (e.Cat != "backward" || e.Args["layer"] != "model.layers.0.mixer") {
			t.Errorf("a scan's backward has category %q, layer %v", e.Cat, e.Args["layer"])
		}
		if e.Name == "adamw" && e.Cat != "update" {
			t.Errorf("adamw has category %q", e.Cat)
		}
	}
	for _, o := range b.Ops {
		if seen[o.Op] < o.Calls {
			t.Errorf("%s: %d spans of %d calls", o.Op, seen[o.Op], o.Calls)
		}
	}
	// On a busy machine worker 0 may do all the work.
	want := map[int]string{0: "layers", 1: "worker 0"}
	if len(lanes) > 2 {
		want[2] = "worker 1"
	}
	if !maps.Equal(lanes, want) {
		t.Errorf("lanes are %v, want %v", lanes, want)
	}
	for _, want := range []string{"forward forward", "forward model.layers.3.mixer", "backward model.layers.0.mixer", "update update"} {
		if !layers[want] {
			t.Errorf("no span of %q in the lane of layers: %v", want, layers)
		}
	}
}

func TestRunThreads(t *testing.T) {
	s, err := RunThreads(tiny(t), []int{1, 3}, 2, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Threads) != 2 || s.Threads[0].Threads != 1 || s.Threads[1].Threads != 3 {
		t.Fatalf("%+v", s)
	}
	for _, n := range s.Threads {
		if n.Steps != 2 || n.StepMS <= 0 || n.MinSpeedup > n.Speedup || n.Speedup > n.MaxSpeedup || n.MinSpeedup <= 0 {
			t.Errorf("%+v", n)
		}
	}
	if one := s.Threads[0]; one.MinSpeedup != 1 || one.MaxSpeedup != 1 {
		t.Errorf("the first number of threads is %v to %v times as fast as itself", one.MinSpeedup, one.MaxSpeedup)
	}
}

func TestErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		run  func() error
		want string
	}{
		{"no steps", func() error { _, err := Run(tiny(t), Options{Log: quiet}); return err }, "bench: the number of steps must be at least 1, is 0"},
		{"no rounds", func() error { _, err := RunThreads(tiny(t), []int{1}, 0, quiet); return err }, "bench: the number of steps must be at least 1, is 0"},
		{"negative threads", func() error { _, err := RunThreads(tiny(t), []int{-1}, 1, quiet); return err }, "run.threads: "},
		{"a file for a folder", func() error { _, err := Run(tiny(t), Options{Steps: 1, Profile: file, Log: quiet}); return err }, "profile: mkdir " + file},
	} {
		if err := c.run(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", c.what, err, c.want)
		}
	}
}

// nameless is a program that can't distinguish workers, like a GPU's.
type nameless struct{ graph.Program }

func (d namelessDevice) Load(p *graph.Plan, m graph.Memory) (graph.Program, error) {
	prog, err := d.Device.Load(p, m)
	return nameless{prog}, err
}

type namelessDevice struct{ graph.Device }

// TestOneLane: if workers can't be distinguished, a step's calls follow each other on one lane, and
// there are no limits to compare them with.
func TestOneLane(t *testing.T) {
	dev, err := cpu.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	rec := &recorder{Device: namelessDevice{dev}}
	b := graph.NewBuilder(add.Spec)
	x := b.Input("x", graph.Float32, 1, 1, 2)
	b.Result("y", b.Apply(add.Spec(3), b.Apply(add.Spec(3), x, x), x))
	plan, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	prog, err := rec.Load(plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := rec.during(tracing, prog.Run); err != nil {
		t.Fatal(err)
	}
	if len(rec.events) != 2 || rec.events[0].end > rec.events[1].start || rec.events[0].worker != 0 || rec.events[1].worker != 0 {
		t.Errorf("%+v", rec.events)
	}
	if n := rec.threads(); n != 0 {
		t.Errorf("%d threads", n)
	}
	var w strings.Builder
	if err := writeTrace(&w, rec); err != nil || !strings.Contains(w.String(), `"name":"GPU"`) {
		t.Errorf("%v: %s", err, w.String())
	}
}
