package attention

import (
	"slices"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// call is an op with device buffers of one type that nothing lies in. pad widens the
// rows.
func call(t *testing.T, s *graph.Spec, dims graph.Dims, dtype graph.DType, pad int) *graph.CUDACall {
	t.Helper()
	r, err := s.ResolveDims(dims)
	if err != nil {
		t.Fatal(err)
	}
	c := &graph.CUDACall{Dims: r.Dims, Workspace: 1 << 40, Multiprocessors: 132}
	buffers := func(list []graph.Operand) (out []graph.DeviceBuffer) {
		for i, o := range list {
			b := graph.DeviceBuffer{Address: uint64(i+1) << 30, DType: dtype, Rows: o.Shape.Rows(), Cols: o.Shape.Cols()}
			b.Stride = b.Cols + pad
			if o.Kind == graph.Precise {
				b.DType = graph.Float32
			}
			out = append(out, b)
		}
		return out
	}
	c.In, c.Out = buffers(r.In), buffers(r.Out)
	return c
}

// TestCUDAKernels: tensor cores take what they can, and rows.cu the rest.
func TestCUDAKernels(t *testing.T) {
	tiles := []string{"attention_tiles", "attention_delta", "attention_dkv_tiles", "attention_dq_tiles"}
	warpgroups := []string{"attention_warpgroups", "attention_delta", "attention_dkv_warpgroups", "attention_dq_warpgroups"}
	rows := []string{"attention_rows", "attention_delta", "attention_dkv_rows", "attention_dq_rows"}
	for _, c := range []struct {
		name       string
		capability int
		headDim    int
		dtype      graph.DType
		pad        int
		want       []string
	}{
		{"bf16", 80, 128, graph.BFloat16, 0, tiles},
		{"narrow head", 80, 64, graph.BFloat16, 0, tiles},
		{"wide head", 80, 256, graph.BFloat16, 0, tiles},
		{"strided", 80, 128, graph.BFloat16, 8, tiles},
		{"unaligned rows", 80, 128, graph.BFloat16, 4, rows},
		{"another head", 80, 96, graph.BFloat16, 0, rows},
		{"float32", 80, 128, graph.Float32, 0, rows},
		{"Hopper", 90, 128, graph.BFloat16, 0, warpgroups},
		{"Hopper, strided", 90, 128, graph.BFloat16, 8, warpgroups},
		{"Hopper, unaligned rows", 90, 128, graph.BFloat16, 4, rows},
		{"Hopper, narrow head", 90, 64, graph.BFloat16, 0, tiles},
		{"Hopper, float32", 90, 128, graph.Float32, 0, rows},
		{"Blackwell", 100, 128, graph.BFloat16, 0, tiles},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, dims := Config{Heads: 4, KVHeads: 2, HeadDim: c.headDim, Window: 100}, graph.Dims{"B": 2, "T": 300}
			var got []string
			for _, s := range []*graph.Spec{Spec(config), backwardSpec(config)} {
				call := call(t, s, dims, c.dtype, c.pad)
				call.Capability = c.capability
				launches, err := s.CUDA.Launches(call)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range launches {
					got = append(got, l.Kernel)
					limit := 99 << 10 // of the GPUs with the least
					if c.capability == 90 {
						limit = 227 << 10
					}
					if l.Shared > limit {
						t.Errorf("%s: %d bytes of shared memory, more than some GPUs have", l.Kernel, l.Shared)
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("the kernels are %v, want %v", got, c.want)
			}
		})
	}
}

// TestTilings: the kernels' own demands on the tables' sizes.
func TestTilings(t *testing.T) {
	check := func(kernel string, headDim int, s tiling) {
		rows := 32 * s.warps / (headDim / 8) // that a block copies at once
		if s.step%16 != 0 || s.step%rows != 0 {
			t.Errorf("%s, head width %d: a block copies %d rows at once, which don't divide a step of %d", kernel, headDim, rows, s.step)
		}
		if n := 16 * s.rowTiles * s.warps; padded(graph.Dims{"T": 1})%n != 0 || padded(graph.Dims{"T": 1})%s.step != 0 {
			t.Errorf("%s, head width %d: tiles of %d and steps of %d don't divide the padding", kernel, headDim, n, s.step)
		}
	}
	for kernel, table := range map[string]map[int]tiling{"forward": forwardTiling, "dkv": dkvTiling, "dq": dqTiling} {
		for headDim, s := range table {
			check(kernel, headDim, s)
		}
	}
	for kernel, s := range map[string]tiling{"forward": forwardWarpgroups, "dkv": dkvWarpgroups, "dq": dqWarpgroups} {
		check(kernel+" of warpgroups", 128, s)
		if s.warps != 8 || s.step != 64 && s.step != 128 {
			t.Errorf("%s: %d warps and steps of %d aren't two warpgroups with a product of this size", kernel, s.warps, s.step)
		}
	}
}

// TestParts: decoding is split among warps, prefill is not.
func TestParts(t *testing.T) {
	for _, c := range []struct{ tokens, slots, want int }{
		{1, 2048, 64},
		{1, 40, 1},
		{64, 2048, 6},
		{4096, 2048, 1},
	} {
		if got := parts(graph.Dims{"B": 1, "T": c.tokens, "H": 12, "W": c.slots}); got != c.want {
			t.Errorf("%d tokens and %d slots: %d parts, want %d", c.tokens, c.slots, got, c.want)
		}
	}
}
