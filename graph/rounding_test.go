package graph_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/round"
)

// typed is an op with one input and one output, each with a signature mark. dims are the input's.
func typed(name, in, dims, out string) *graph.Spec {
	return &graph.Spec{Name: name, Signature: fmt.Sprintf("x%s[%s] -> y%s[%s]", in, dims, out, dims)}
}

const tensorDims = "B T N"

// described lists a plan's calls, each with the types and regions of its tensors.
func described(p *graph.Plan) []string {
	var list []string
	for _, s := range p.Steps {
		var text []string
		for _, slots := range [][]graph.Slot{s.In, s.Out} {
			var part []string
			for _, v := range slots {
				part = append(part, fmt.Sprintf("%v %v", v.DType, v.Region))
			}
			text = append(text, strings.Join(part, ", "))
		}
		list = append(list, fmt.Sprintf("%s: %s -> %s", s.Spec.Name, text[0], text[1]))
	}
	return list
}

// TestInputTypes: the type and the region in which an op gets a tensor, depending on its signature,
// and how often a conversion is needed.
func TestInputTypes(t *testing.T) {
	const plain, factor, precise = "", ":mm", ":f32"
	input := func(b *graph.Builder) graph.Tensor { return b.Input("x", graph.Float32, 1, 2, 64) }
	narrow := func(b *graph.Builder) graph.Tensor { return b.Apply(typed("made", plain, tensorDims, plain), input(b)) }
	wide := func(b *graph.Builder) graph.Tensor {
		return b.Apply(typed("made", plain, tensorDims, precise), input(b))
	}
	state := func(b *graph.Builder) graph.Tensor { return b.State("s", 1, 2, 64) }
	cache := func(b *graph.Builder) graph.Tensor { return b.Cache("s", 1, 2, 64) }
	matrix := func(b *graph.Builder) graph.Tensor {
		b.Param("before", nil, 3, 64)
		return b.Param("w", nil, 2, 64)
	}
	vector := func(b *graph.Builder) graph.Tensor { return b.Param("w", nil, 64) }
	for _, c := range []struct {
		name   string
		source func(b *graph.Builder) graph.Tensor
		dims   string
		mark   string
		want   string // of the reader's input
		rounds int
	}{
		{"an input", input, tensorDims, plain, "float32 inputs", 0},
		{"an input as a factor", input, tensorDims, factor, "bfloat16 arena", 1},
		{"an input, precisely", input, tensorDims, precise, "float32 inputs", 0},
		{"an activation", narrow, tensorDims, plain, "bfloat16 arena", 0},
		{"an activation as a factor", narrow, tensorDims, factor, "bfloat16 arena", 0},
		{"a float32 activation", wide, tensorDims, plain, "float32 arena", 0},
		{"a float32 activation as a factor", wide, tensorDims, factor, "bfloat16 arena", 1},
		{"a state", state, tensorDims, plain, "float32 states", 0},
		{"a state as a factor", state, tensorDims, factor, "bfloat16 arena", 2}, // it may change in between
		{"a cache as a factor", cache, tensorDims, factor, "bfloat16 states", 0},
		{"a weight", matrix, "M N", plain, "bfloat16 shadow", 0},
		{"a weight as a factor", matrix, "M N", factor, "bfloat16 shadow", 0},
		{"a weight, precisely", matrix, "M N", precise, "float32 params", 0},
		{"a vector of weights", vector, "N", plain, "float32 params", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			b.SetMixed(round.Spec())
			x := c.source(b)
			for _, reader := range []string{"one", "other"} {
				b.Result(reader, b.Apply(typed(reader, c.mark, c.dims, plain), x))
			}
			p := compile(t, b)
			rounds, readers := 0, 0
			for i, s := range p.Steps {
				switch s.Spec.Name {
				case "round":
					rounds++
				case "one", "other":
					readers++
					if got := fmt.Sprintf("%v %v", s.In[0].DType, s.In[0].Region); got != c.want {
						t.Errorf("step %d takes it as %s, want %s", i, got, c.want)
					}
					// Region Shadow has two weights where Params has one.
					if s.In[0].Region == graph.Shadow && 2*s.In[0].Offset != paramSlot(p, "w", graph.Params).Offset {
						t.Errorf("step %d takes the weight at %d of %v", i, s.In[0].Offset, s.In[0].Region)
					}
				}
			}
			if rounds != c.rounds || readers != 2 {
				t.Errorf("%d roundings for %d readers, want %d for 2:\n%s", rounds, readers, c.rounds, strings.Join(described(p), "\n"))
			}
		})
	}
}

// TestOutputTypes: the type of an op's output, in mixed precision, in a float32 block of it, and
// without it.
func TestOutputTypes(t *testing.T) {
	promoting := func(more string) *graph.Spec {
		return &graph.Spec{Name: "op", Signature: "x[B T N] -> y[B T N]" + more, Promote: true}
	}
	for _, c := range []struct {
		name   string
		spec   *graph.Spec
		narrow bool // the op's input is bfloat16 in mixed precision
		want   graph.DType
	}{
		{"an activation", typed("op", "", tensorDims, ""), false, graph.BFloat16},
		{"a product", typed("op", ":mm", tensorDims, ""), false, graph.BFloat16},
		{"a float32 output", typed("op", "", tensorDims, ":f32"), true, graph.Float32},
		{"int32", typed("op", "", tensorDims, ":i32"), true, graph.Int32},
		{"the widest of float32", promoting(""), false, graph.Float32},
		{"the widest of float32, beside another output", promoting(", z[B T N]"), false, graph.Float32},
		{"the widest of bfloat16", promoting(""), true, graph.BFloat16},
	} {
		for _, mode := range []string{"mixed", "float32 block", "float32"} {
			b := newBuilder()
			if mode != "float32" {
				b.SetMixed(round.Spec())
			}
			if mode == "float32 block" {
				b.SetFloat32Blocks(1)
			}
			b.Block(func() {
				x := b.Input("x", graph.Float32, 1, 2, 64)
				if c.narrow {
					x = b.Apply(typed("made", "", tensorDims, ""), x)
				}
				b.Result("y", b.Apply(c.spec, x))
			})
			want := c.want
			if mode != "mixed" && want == graph.BFloat16 {
				want = graph.Float32
			}
			p := compile(t, b)
			if got := p.Results["y"].DType; got != want {
				t.Errorf("%s, %s: gives %v, want %v\n%s", c.name, mode, got, want, strings.Join(described(p), "\n"))
			}
			for _, out := range p.Steps[len(p.Steps)-1].Out[1:] { // Promote concerns only the first output
				if (out.DType == graph.BFloat16) != (mode == "mixed") {
					t.Errorf("%s, %s: gives another output in %v", c.name, mode, out.DType)
				}
			}
		}
	}
}

// narrowMaker can return its output as a Float24, and narrowReader accepts one as its last input.
func narrowMaker() *graph.Spec {
	s := typed("maker", "", tensorDims, ":f32")
	s.Rounded = func() *graph.Spec {
		return &graph.Spec{Name: "maker_rounded", Signature: "x[B T N] -> y:f32[B T N], r[B T N]", Unrounded: narrowMaker}
	}
	return s
}

func narrowReader() *graph.Spec {
	return &graph.Spec{Name: "both", Signature: "x[B T N], z[B T N] -> y:f32[B T N]", Narrow: []int{1}}
}

func mul2() *graph.Spec {
	return &graph.Spec{Name: "mul2", Signature: "x[B T N], z[B T N] -> y[B T N]"}
}

// TestRoundings: a tensor is rounded once, in the layer and the pass of the op that needed it
// first, and by the op that computes it if that supports it.
func TestRoundings(t *testing.T) {
	makes := func(able bool) *graph.Spec {
		s := typed("maker", "", tensorDims, ":f32")
		if able {
			s.Rounded = func() *graph.Spec {
				return &graph.Spec{Name: "maker_rounded", Signature: "x[B T N] -> y:f32[B T N], r:mm[B T N]"}
			}
		}
		return s
	}
	reader := typed("reader", ":mm", tensorDims, "")
	for _, c := range []struct {
		name  string
		build func(b *graph.Builder) graph.Tensor
		want  []string
	}{
		{"by an op of its own", func(b *graph.Builder) graph.Tensor {
			x := b.Apply(makes(false), b.Input("x", graph.Float32, 1, 2, 64))
			return b.Apply(reader, x)
		}, []string{
			"maker: float32 inputs -> float32 arena",
			"round: float32 arena -> bfloat16 arena",
			"reader: bfloat16 arena -> bfloat16 arena",
		}},
		{"by its maker", func(b *graph.Builder) graph.Tensor {
			x := b.Apply(makes(true), b.Input("x", graph.Float32, 1, 2, 64))
			return b.Apply(reader, x)
		}, []string{
			"maker_rounded: float32 inputs -> float32 arena, bfloat16 arena",
			"reader: bfloat16 arena -> bfloat16 arena",
		}},
		{"by its maker, in the first plane of what another reader takes", func(b *graph.Builder) graph.Tensor {
			x := b.Apply(narrowMaker(), b.Input("x", graph.Float32, 1, 2, 64))
			return b.Apply(narrowReader(), b.Apply(reader, x), x)
		}, []string{
			"maker: float32 inputs -> float24 arena",
			"reader: bfloat16 arena -> bfloat16 arena",
			"both: bfloat16 arena, float24 arena -> float32 arena",
		}},
		{"by its maker, beside what another reader takes whole", func(b *graph.Builder) graph.Tensor {
			x := b.Apply(narrowMaker(), b.Input("x", graph.Float32, 1, 2, 64))
			return b.Apply(mul2(), b.Apply(narrowReader(), b.Apply(reader, x), x), x)
		}, []string{
			"maker_rounded: float32 inputs -> float32 arena, bfloat16 arena",
			"reader: bfloat16 arena -> bfloat16 arena",
			"both: bfloat16 arena, float32 arena -> float32 arena",
			"mul2: float32 arena, float32 arena -> bfloat16 arena",
		}},
		{"by its maker, beside a float32 block that takes it whole", func(b *graph.Builder) graph.Tensor {
			b.SetFloat32Blocks(1)
			var z graph.Tensor
			x := b.Apply(narrowMaker(), b.Input("x", graph.Float32, 1, 2, 64))
			y := b.Apply(reader, x)
			b.Block(func() {
				z = b.Apply(narrowReader(), b.Apply(typed("wide", "", tensorDims, ""), b.Input("z", graph.Float32, 1, 2, 64)), x)
			})
			return b.Apply(mul2(), y, z)
		}, []string{
			"maker_rounded: float32 inputs -> float32 arena, bfloat16 arena",
			"reader: bfloat16 arena -> bfloat16 arena",
			"wide: float32 inputs -> float32 arena",
			"both: float32 arena, float32 arena -> float32 arena",
			"mul2: bfloat16 arena, float32 arena -> bfloat16 arena",
		}},
		{"by its maker, beside a result", func(b *graph.Builder) graph.Tensor {
			x := b.Apply(narrowMaker(), b.Input("x", graph.Float32, 1, 2, 64))
			b.Result("x", x)
			return b.Apply(narrowReader(), b.Apply(reader, x), x)
		}, []string{
			"maker_rounded: float32 inputs -> float32 arena, bfloat16 arena",
			"reader: bfloat16 arena -> bfloat16 arena",
			"both: bfloat16 arena, float32 arena -> float32 arena",
		}},
		{"by its maker, for no one", func(b *graph.Builder) graph.Tensor {
			x := b.Apply(makes(true), b.Input("x", graph.Float32, 1, 2, 64))
			return b.Apply(typed("reader", "", tensorDims, ""), x)
		}, []string{
			"maker: float32 inputs -> float32 arena",
			"reader: float32 arena -> bfloat16 arena",
		}},
		{"back, once for a float32 block", func(b *graph.Builder) graph.Tensor {
			b.SetFloat32Blocks(1)
			x := b.Apply(typed("maker", "", tensorDims, ""), b.Input("x", graph.Float32, 1, 2, 64))
			var y graph.Tensor
			b.Block(func() { y = b.Apply(mul(), b.Apply(reader, x), x) })
			return y
		}, []string{
			"maker: float32 inputs -> bfloat16 arena",
			"round: bfloat16 arena -> float32 arena",
			"reader: float32 arena -> float32 arena",
			"mul: float32 arena, float32 arena -> float32 arena",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			b.SetMixed(round.Spec())
			b.Result("y", c.build(b))
			if diff := cmp.Diff(c.want, described(compile(t, b))); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRoundingsBelong: a rounding is part of the layer, and of the pass, whose op needed it;
// gradients of parameters are float32, whatever type the op that computes them returns elsewhere.
func TestRoundingsBelong(t *testing.T) {
	b := newBuilder()
	b.SetMixed(round.Spec())
	w := b.Param("w", nil, 1, 2, 64)
	x := b.Input("x", graph.Float32, 1, 2, 64)
	after := typed("after", "", tensorDims, "")
	after.Gradient = func(g *graph.Gradient) []graph.Tensor {
		return []graph.Tensor{g.Builder().Apply(typed("after_backward", "", tensorDims, ":f32"), g.DOut)}
	}
	var y graph.Tensor
	b.Scope("layer", func() { y = b.Apply(mul(), x, w) })
	b.Scope("next", func() { y = b.Apply(after, y) })
	loss := b.Apply(total(1), y)
	b.Result("loss", loss)
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	p := compile(t, b)
	var got []string
	for i, s := range p.Steps {
		if s.Spec.Name == "round" {
			got = append(got, fmt.Sprintf("%s, backward %v", s.Path, s.Backward))
		}
		for _, out := range s.Out {
			if out.Region == graph.Grads && out.DType != graph.Float32 {
				t.Errorf("step %d makes a gradient in %v", i, out.DType)
			}
		}
	}
	// Of x, which both passes read, and of the gradient of mul's output.
	if diff := cmp.Diff([]string{"layer, backward false", "layer, backward true"}, got); diff != "" {
		t.Errorf("roundings (-want +got):\n%s\n%s", diff, strings.Join(described(p), "\n"))
	}
}

// TestNarrowRows: only rows of whole 16 bytes become a Float24, whose planes lie one after the other.
func TestNarrowRows(t *testing.T) {
	for cols, want := range map[int]graph.DType{64: graph.Float24, 60: graph.Float32, 72: graph.Float24} {
		b := newBuilder()
		b.SetMixed(round.Spec())
		x := b.Apply(narrowMaker(), b.Input("x", graph.Float32, 1, 2, cols))
		b.Result("y", b.Apply(narrowReader(), b.Apply(typed("reader", ":mm", tensorDims, ""), x), x))
		if got := compile(t, b).Steps[0].Out[0].DType; got != want {
			t.Errorf("%d columns: %v, want %v", cols, got, want)
		}
	}
}
