package train

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/recipes"
)

// TestInspect counts the models of Samba's paper and code (arXiv 2406.07522, Tables 3, 11 and 12;
// microsoft/Samba, lit_gpt/config.py). The expected numbers were counted by hand from these
// settings.
func TestInspect(t *testing.T) {
	const (
		at421M = "vocab_size: 32000\n  d_model: 1536\n  attention: {heads: 12, window: 2048}\n  mlp: {d_ff: 4096}\n"
		at1B3  = "vocab_size: 32000\n  d_model: 2304\n  attention: {heads: 18, window: 2048}\n  mlp: {d_ff: 6144}\n"
		at1B7  = "vocab_size: 50304\n  d_model: 2048\n  attention: {heads: 32, kv_heads: 4, window: 2048}\n  mlp: {d_ff: 8196}\n"
		stack  = "  layers: {pattern: [%s], repeat: %d}\n"
		hybrid = "mamba, mlp, swa, mlp"
	)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, test := range []struct {
		name, model, pattern string
		repeat               int
		total, nonEmbedding  int64
		gflops               float64 // per token in rows of 4096; 0 is not compared
	}{
		{"Samba 421M", at421M, hybrid, 6, 421_793_280, 372_641_280, 2.698},
		{"Samba-NoPE 421M", strings.Replace(at421M, "window", "rope_base: 0, window", 1), hybrid, 6, 421_793_280, 372_641_280, 2.698},
		{"Samba 1.3B", at1B3, hybrid, 9, 1_330_207_488, 1_256_479_488, 0},
		{"Samba 1.7B", at1B7, hybrid, 12, 1_742_194_688, 1_639_172_096, 0},
		{"Samba 3.8B", "vocab_size: 32064\n  d_model: 2816\n  attention: {heads: 11, kv_heads: 1, window: 2048}\n  mlp: {d_ff: 9984}\n", hybrid, 16, 3_864_275_712, 3_773_983_488, 0},
		{"Mamba 432M", "vocab_size: 32000\n  d_model: 1024\n", "mamba", 60, 432_804_864, 400_036_864, 0},
		{"Mamba 1.8B", at1B7, "mamba", 64, 1_795_295_232, 1_692_272_640, 0},
		{"Llama-2 438M", at421M + "  tie_embeddings: false\n  init: llama\n", "attn, mlp", 12, 438_081_024, 339_777_024, 2.786},
		{"Llama-2-SWA 438M", at421M + "  tie_embeddings: false\n", "swa, mlp", 12, 438_081_024, 339_777_024, 0},
		{"Llama-3 1.6B", at1B7, "attn, mlp", 24, 1_538_164_736, 1_435_142_144, 0},
		{"MLP2-SWA-MLP 417M", at421M, "{mlp: {d_ff: 3072}}, mlp, swa, mlp", 6, 417_240_576, 368_088_576, 0},
		{"Mamba-SWA-MLP 400M", at421M, "mamba, swa, mlp", 8, 394_999_296, 345_847_296, 0},
		{"Mega-S6 422M", at421M, "mega, mlp", 12, 422_486_016, 373_334_016, 2.654},
		{"Mega-S6 1.3B", at1B3, "mega, mlp", 18, 1_329_767_424, 1_256_039_424, 0},
		{"Mamba-MLP 1.9B", at1B7, "mamba, mlp", 24, 1_946_224_640, 1_843_202_048, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := "name: x\nmodel:\n  " + test.model + fmt.Sprintf(stack, test.pattern, test.repeat) +
				"data: {shards: x, seq_len: 4096}\ntrain: {steps: 9536, batch_size: 512, micro_batch: 1}\n"
			r, err := recipes.Parse([]byte(text), "test")
			if err != nil {
				t.Fatal(err)
			}
			in, err := Inspect(r)
			if err != nil {
				t.Fatal(err)
			}
			if in.Parameters.Total != test.total || in.Parameters.NonEmbedding != test.nonEmbedding {
				t.Errorf("%d parameters, %d without embedding; want %d, %d",
					in.Parameters.Total, in.Parameters.NonEmbedding, test.total, test.nonEmbedding)
			}
			if test.gflops > 0 && math.Abs(in.FLOPsPerToken/1e9-test.gflops) > 5e-4 {
				t.Errorf("%.4f GFLOP per token, want %.3f", in.FLOPsPerToken/1e9, test.gflops)
			}
			parts, places := int64(0), 0
			for _, p := range in.Parameters.Parts {
				parts += p.Parameters
				if p.Name != "embedding" && p.Name != "head" && p.Name != "final norm" {
					places += p.Count
				}
			}
			if parts != test.total || places != in.Sublayers {
				t.Errorf("the parts have %d parameters in %d sublayers; want %d in %d", parts, places, test.total, in.Sublayers)
			}
			if in.TokensPerStep != 512*4096 || in.Steps != 9536 {
				t.Errorf("%d steps of %d tokens", in.Steps, in.TokensPerStep)
			}
			// There is padding between parameters in the regions, less than 1%.
			m := in.Memory
			if m.Parameters < 4*test.total || float64(m.Parameters) > 4.04*float64(test.total) {
				t.Errorf("%d bytes of parameters for %d of them", m.Parameters, test.total)
			}
			// The gradients of 512 micro-batches are accumulated where they are computed.
			if m.Gradients != m.Parameters || m.Optimizer != 2*m.Parameters || m.Activations <= 0 ||
				m.Total != m.Parameters+m.Gradients+m.Optimizer+m.Activations || m.CheckpointCopy != 12*test.total {
				t.Errorf("memory: %+v", m)
			}
		})
	}
	runtime.ReadMemStats(&after)
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 1<<30 {
		t.Errorf("%d bytes were allocated to count, less than the smallest model takes", spent)
	}
}

// TestInspectParts names each part of an untied stack once.
func TestInspectParts(t *testing.T) {
	r, err := recipes.Parse([]byte(`
name: x
model:
  vocab_size: 61
  d_model: 32
  tie_embeddings: false
  layers: {pattern: [mamba, mlp, swa, mlp], repeat: 2}
  attention: {heads: 4, kv_heads: 2, window: 8}
  mlp: {d_ff: 48}
data: {shards: x, seq_len: 16}
train: {steps: 1, batch_size: 2}
`), "test")
	if err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(r)
	if err != nil {
		t.Fatal(err)
	}
	// d = 32, c = 64, n = 16, r = 2.
	mamba := int64(2*64*32 + 64*4 + 64 + (2+32)*64 + 64*2 + 64 + 64*16 + 64 + 32*64 + 32)
	want := []Part{
		{"embedding", 1, 61 * 32},
		{"mamba", 2, 2 * mamba},
		{"mlp", 4, 4 * (3*32*48 + 32)},
		{"swa", 2, 2 * (32*32 + 2*16*32 + 32*32 + 32)},
		{"final norm", 1, 32},
		{"head", 1, 61 * 32},
	}
	for _, w := range want {
		found := false
		for _, p := range in.Parameters.Parts {
			if p.Name == w.Name {
				found = true
				if p != w {
					t.Errorf("%+v, want %+v", p, w)
				}
			}
		}
		if !found {
			t.Errorf("no part %s in %+v", w.Name, in.Parameters.Parts)
		}
	}
	if len(in.Parameters.Parts) != len(want) {
		t.Errorf("parts %+v", in.Parameters.Parts)
	}
	if in.Memory.Gradients != in.Memory.Parameters {
		t.Errorf("one micro-batch needs no sum: %+v", in.Memory)
	}
}

// TestFLOPsByWindow: a window that covers the rows costs the same as full attention, a shorter one
// less.
func TestFLOPsByWindow(t *testing.T) {
	flops := func(pattern string, window int) float64 {
		r, err := recipes.Parse(fmt.Appendf(nil, `
name: x
model:
  vocab_size: 61
  d_model: 32
  layers: {pattern: [%s]}
  attention: {heads: 4, window: %d}
data: {shards: x, seq_len: 16}
train: {steps: 1, batch_size: 2}
`, pattern, window), "test")
		if err != nil {
			t.Fatal(err)
		}
		in, err := Inspect(r)
		if err != nil {
			t.Fatal(err)
		}
		return in.FLOPsPerToken
	}
	// 8 and 32 channels; chunks of 6, 6 and 4 tokens.
	mega := 6*(61*32+5*32*32+8*32+2*1*32+2*16*32) + 6*(8+32)*(2*6*7/2+4*5/2)/16.0
	if got := flops("{mega: {z_dim: 8, chunk: 6}}", 3); got != mega {
		t.Errorf("mega: %v, want %v", got, mega)
	}
	weights := 6.0 * (61*32 + 4*32*32)
	// Of 16 tokens the first sees 1, the second 2, and so on.
	full := weights + 12*32*(16*17/2)/16.0
	if got := flops("attn", 3); got != full {
		t.Errorf("attn: %v, want %v", got, full)
	}
	for window, pairs := range map[int]float64{16: 136, 100: 136, 1: 16, 3: 1 + 2 + 3*14} {
		if got, want := flops("swa", window), weights+12*32*pairs/16; got != want {
			t.Errorf("window %d: %v, want %v", window, got, want)
		}
	}
}
