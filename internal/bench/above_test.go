package bench

import (
	"slices"
	"testing"
)

func TestAbove(t *testing.T) {
	for _, c := range []struct {
		name string
		of   Result
		want []string
	}{
		{"below", Result{MFU: 0.7, Ops: []Op{{Op: "adamw", PeakShare: 1.004, MemoryBound: true}}}, nil},
		{"in caches", Result{MFU: 0.7, Ops: []Op{{Op: "adamw", PeakShare: 1.1, MemoryBound: true}, {Op: "linear", PeakShare: 0.9}, {Op: "rope", PeakShare: 3, MemoryBound: true}}},
			[]string{"above 100%: adamw, rope: " + inCaches}},
		{"slower", Result{Precision: "float32", MFU: 1.01, Ops: []Op{{Op: "rope", PeakShare: 2, MemoryBound: true}, {Op: "linear", PeakShare: 1.2}}},
			[]string{"above 100%: rope: " + inCaches, "above 100%: MFU, linear: " + thenSlower}},
		{"bfloat16", Result{Precision: "bfloat16, float32 in the first 4 of 8 sublayers", MFU: 1.2, Ops: []Op{{Op: "linear", PeakShare: 1.5}}},
			[]string{"above 100%: MFU, linear: " + inBFloat16}},
	} {
		if got := c.of.Above(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		precision, limits string
		prompt, decode    float64
		want              []string
	}{
		{"float32", "measured", 1, 0.9, nil},
		{"float32", "measured", 1.01, 1.5, []string{"above 100% of the compute limit: " + thenSlower, "above 100% of the memory limit: " + inCaches}},
		{"bfloat16", "measured, GB/s given", 1.7, 1.5, []string{"above 100% of the compute limit: " + inBFloat16, "above 100% of the memory limit: " + otherLimit}},
		{"float32", "data sheet of the H100 SXM", 1.7, 0, []string{"above 100% of the compute limit: " + otherLimit}},
	} {
		g := Generation{Precision: c.precision, Limits: c.limits, Prompts: []PromptSpeed{{Share: 0.2}, {Share: c.prompt}}, Decode: []DecodeSpeed{{Share: c.decode}, {}}}
		if got := g.Above(); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c, got, c.want)
		}
	}
}
