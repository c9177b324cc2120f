package bench

import (
	"math"
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph/cpu/peak"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/layers"
)

// TestGenerate checks the sums, not the speed.
func TestGenerate(t *testing.T) {
	r := tiny(t)
	o := GenerateOptions{Prompts: []int{16, 64, 256}, Tokens: 128, CallTokens: 32, Positions: []int{0, 4, 100}, Rows: 3, Steps: 2, Runs: 2, TFLOPs: 2, GBs: 50, Ops: true, Log: quiet}
	g, err := Generate(r, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, rows := range []int{8, 2, 1} {
		p := g.Prompts[i]
		if p.Length != o.Prompts[i] || p.Rows != rows || !(p.MinSeconds > 0 && p.MinSeconds <= p.Seconds && p.Seconds <= p.MaxSeconds) ||
			math.Abs(p.TokensPerSecond*p.Seconds-float64(rows*p.Length)) > 1e-6 || !(p.Share > 0) {
			t.Errorf("%+v", p)
		}
	}
	for i, d := range g.Decode {
		if d.Position != o.Positions[i] || d.Rows != 3 || !(d.StepMS > 0) || math.Abs(d.TokensPerSecond*d.StepMS-3000) > 1e-6 || !(d.Share > 0) {
			t.Errorf("%+v", d)
		}
	}
	if a, b, c := g.Decode[0], g.Decode[1], g.Decode[2]; a.StateBytes >= b.StateBytes || b.StateBytes > c.StateBytes || c.StateBytes-b.StateBytes > 4*3*8*2*32 {
		t.Errorf("states of %d, %d and %d bytes: the window holds 8 tokens", a.StateBytes, b.StateBytes, c.StateBytes)
	}
	for name, ops := range map[string][]Op{"prompts": g.PromptOps, "decoding": g.DecodeOps} {
		calls, ms := 0, 0.0
		for _, op := range ops {
			calls, ms = calls+op.Calls, ms+op.MS
		}
		if plan := len(ops); plan == 0 || !(ms > 0) || calls < plan {
			t.Errorf("%s: %d calls of %d ops, %v ms", name, calls, plan, ms)
		}
	}
	if g.Limits != "given" || g.Name != "tiny" {
		t.Errorf("%+v", g)
	}
	// Full attention keeps all tokens, and each sequence its next one.
	r.Model.Layers.Pattern = []layers.Place{{Mixer: "attn"}, {Mixer: "mlp"}}
	o.Prompts, o.TFLOPs, o.GBs = nil, 0, 7
	if g, err = Generate(r, o); err != nil {
		t.Fatal(err)
	}
	if got, want := g.Decode[2].StateBytes, int64(4*3*103*2*32+4*3); got != want || g.Limits != "measured, GB/s given" || !(g.TFLOPs > 0) || g.GBs != 7 {
		t.Errorf("%d bytes of state, want %d; %+v", got, want, g)
	}
}

func TestLimitsOf(t *testing.T) {
	for _, c := range []struct {
		device      string
		tflops, gbs float64
		source      string
	}{
		{"cuda (NVIDIA H100 80GB HBM3, sm_90a)", 989.4, 3350, "data sheet of the H100 SXM"},
		{"cuda (NVIDIA H200, sm_90a)", 989.4, 4800, "data sheet of the H200 SXM"},
		{"cuda (NVIDIA L4, sm_89)", 0, 0, "unknown"},
	} {
		if tflops, gbs, source := limitsOf(c.device, nil); tflops != c.tflops || gbs != c.gbs || source != c.source {
			t.Errorf("%s: %v TFLOP/s, %v GB/s, %s", c.device, tflops, gbs, source)
		}
	}
	meter := peak.NewMeter(1)
	meter.Turn()
	if tflops, gbs, source := limitsOf("cpu (1 threads, avx2)", meter); !(tflops > 0 && gbs > 0) || source != measured {
		t.Errorf("a CPU: %v TFLOP/s, %v GB/s, %s", tflops, gbs, source)
	}
}

// TestTurns: the limits are measured before each step and after the last.
func TestTurns(t *testing.T) {
	r := tiny(t)
	dev, err := train.NewDevice(r.Run, quiet)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newStepper(dev, r, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var at []int64
	if _, err := s.timed(3, timing, func() { at = append(at, s.step) }); err != nil || !slices.Equal(at, []int64{1, 2, 3, 4}) {
		t.Errorf("measured before steps %v, %v", at, err)
	}
}

// TestPromptWork: a prompt's operations are those of its tokens' products and attention; those of
// the head, and of the MLP that only the last token needs, count once.
func TestPromptWork(t *testing.T) {
	r := tiny(t)
	r.Model.Layers.Pattern = []layers.Place{{Mixer: "mlp"}, {Mixer: "attn"}, {Mixer: "mlp"}}
	g, err := Generate(r, GenerateOptions{Prompts: []int{10}, Tokens: 20, CallTokens: 20, Runs: 1, TFLOPs: 1, GBs: 1, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	p := g.Prompts[0]
	const mlp, attention, head, pairs = 3 * 32 * 64, 4 * 32 * 32, 272 * 32, 55
	want := 2 * (10*2*(mlp+attention) + 4*32*pairs + 2*(mlp+head))
	if got := p.Share * p.Seconds * 1e12; math.Abs(got-float64(want)) > 1e-3*float64(want) {
		t.Errorf("%v operations, want %d", got, want)
	}
}
