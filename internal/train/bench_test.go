package train

import (
	"log/slog"
	"math"
	"strings"
	"testing"
)

// TestBench checks the sums, not the speed.
func TestBench(t *testing.T) {
	r := recipe(t)
	b, err := Bench(r, 2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if b.Rows != 2 || b.SeqLen != 16 || b.Steps != 2 || b.MinStepMS <= 0 || b.MinStepMS > b.StepMS || b.StepMS > b.MaxStepMS {
		t.Errorf("%+v", b)
	}
	if want := 32 / b.StepMS * 1e3; math.Abs(b.TokensPerSecond-want) > 1e-6*want {
		t.Errorf("%v tokens/s, want %v", b.TokensPerSecond, want)
	}
	shares, calls := 0.0, map[string]int{}
	for i, o := range b.Ops {
		shares += o.Share
		calls[o.Op] = o.Calls
		if i > 0 && o.MS > b.Ops[i-1].MS {
			t.Errorf("%s comes after %s, which is quicker", o.Op, b.Ops[i-1].Op)
		}
	}
	if math.Abs(shares-1) > 1e-9 {
		t.Errorf("the shares sum to %v", shares)
	}
	for op, n := range map[string]int{"selective_scan": 1, "selective_scan_backward": 1, "attention": 1, "attention_backward": 1, "embedding": 1} {
		if calls[op] != n {
			t.Errorf("%d calls of %s, want %d", calls[op], op, n)
		}
	}
	if _, err := Bench(r, 0, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "at least 1") {
		t.Errorf("no steps: %v", err)
	}
}
