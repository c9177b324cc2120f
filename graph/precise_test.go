package graph_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/round"
	"github.com/sambatrain/sambatrain/layers"
)

// preciseSteps checks that precise calls have only float32 tensors and read unrounded weights. It
// counts them and the others.
func preciseSteps(t *testing.T, p *graph.Plan) (precise, others int) {
	t.Helper()
	for i, s := range p.Steps {
		if !s.Precise {
			others++
			continue
		}
		precise++
		for k, in := range s.In {
			if in.DType == graph.BFloat16 && s.Spec.Name != "round" || in.Region == graph.Shadow {
				t.Errorf("step %d (%s %s) takes input %d as %v of %v", i, s.Path, s.Spec.Name, k, in.DType, in.Region)
			}
		}
		for k, out := range s.Out {
			if out.DType == graph.BFloat16 {
				t.Errorf("step %d (%s %s) gives output %d as %v", i, s.Path, s.Spec.Name, k, out.DType)
			}
		}
	}
	return precise, others
}

// TestFloat32Blocks: in a model with every mixer, the first sublayers are planned in float32,
// forward and backward, and the others as without float32 blocks; also where activations are
// recomputed.
func TestFloat32Blocks(t *testing.T) {
	m := layers.Defaults()
	m.VocabSize, m.DModel, m.MLP.DFF, m.Attention.Window = 61, 32, 48, 12
	m.Mega.ZDim, m.Mega.Chunk = 8, 16
	m.Layers.Repeat = 2
	for _, name := range []string{"mega", "mamba", "gla", "swa", "mlp", "retention", "mega", "attn"} {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	plan := func(n int, limit int64) *graph.Plan {
		b := layers.NewBuilder(layers.Precision{Mixed: true, Float32Sublayers: n})
		loss := m.Loss(b, b.Input("tokens", graph.Int32, 2, 24), b.Input("targets", graph.Int32, 2, 24))
		b.Result("loss", loss)
		if err := b.Gradients(loss); err != nil {
			t.Fatal(err)
		}
		b.SetArenaLimit(limit)
		return compile(t, b)
	}
	// within are the calls of sublayers from n on, and of what follows the stack.
	within := func(p *graph.Plan, n int) (list []string) {
		for _, s := range p.Steps {
			i := sublayer(s.Path)
			if i >= n || i < 0 && !strings.HasPrefix(s.Spec.Name, "embedding") {
				// A float32 block does not need a rounded copy of the stream's gradient, and takes it whole.
				name, rounded := strings.CutSuffix(s.Spec.Name, "_rounded")
				out := s.Out
				if rounded {
					out = out[:len(out)-1]
				}
				name += " " + s.Path
				for _, o := range slices.Concat(s.In, out) {
					name += " " + strings.Replace(o.DType.String(), "float24", "float32", 1)
				}
				list = append(list, name)
			}
		}
		return list
	}
	without := plan(0, 0)
	if precise, _ := preciseSteps(t, without); precise > 0 {
		t.Errorf("%d calls are in float32 where no block is", precise)
	}
	depth := m.Depth()
	for _, n := range []int{1, 5, depth} {
		p := plan(n, 0)
		untorn(t, p)
		precise, others := preciseSteps(t, p)
		if precise == 0 || others == 0 {
			t.Errorf("%d calls are in float32 and %d are not, of %d sublayers the first %d", precise, others, depth, n)
		}
		for _, s := range p.Steps {
			if i := sublayer(s.Path); i >= 0 && s.Spec.Name != "add" && s.Precise != (i < n) {
				t.Errorf("%s %s: in float32 %v, where the first %d sublayers are", s.Path, s.Spec.Name, s.Precise, n)
			}
		}
		if diff := cmp.Diff(within(without, n), within(p, n)); diff != "" {
			t.Errorf("after the first %d sublayers in float32 (-where none is, +got):\n%s", n, diff)
		}
		if n != 5 {
			continue
		}
		tight := plan(n, 4*int64(p.Sizes[graph.Arena])*3/4)
		untorn(t, tight)
		preciseSteps(t, tight)
		again := 0
		for _, s := range tight.Steps {
			if s.Again {
				again++
			}
		}
		if again == 0 {
			t.Errorf("nothing is computed again to keep within a limit, with %d sublayers in float32", n)
		}
	}
}

// sublayer is the sublayer number in a path of the model, -1 outside the stack.
func sublayer(path string) int {
	i := -1
	for _, c := range strings.TrimPrefix(path, "model.layers.") {
		if c < '0' || c > '9' || !strings.HasPrefix(path, "model.layers.") {
			break
		}
		i = 10*max(i, 0) + int(c-'0')
	}
	return i
}

// TestRandomProgramsWithFloat32Blocks: whatever the first blocks exchange with others, all of their
// own tensors are float32, and no step reads what another has overwritten.
func TestRandomProgramsWithFloat32Blocks(t *testing.T) {
	precise, others := 0, 0
	for seed := range uint64(100) {
		g := &program{r: rand.New(rand.NewPCG(seed, 9)), b: newBuilder()}
		g.b.SetMixed(round.Spec())
		g.b.SetFloat32Blocks(1 + g.r.IntN(5))
		g.build(10 + g.r.IntN(60))
		p, err := g.b.Compile()
		if err != nil && strings.Contains(err.Error(), "the gradients of") {
			continue // columns of one tensor are read by both kinds of blocks
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		untorn(t, p)
		a, b := preciseSteps(t, p)
		precise, others = precise+a, others+b
		if t.Failed() {
			t.Fatalf("seed %d\n%v", seed, p)
		}
	}
	if precise < 1000 || others < 1000 {
		t.Errorf("only %d calls are in float32 blocks, and %d are not", precise, others)
	}
}

// TestWidened: a float32 block reads bfloat16 tensors widened, once for all of their readers.
func TestWidened(t *testing.T) {
	b := newBuilder()
	b.SetMixed(round.Spec())
	b.SetFloat32Blocks(1)
	x := b.Apply(scale(2), b.Input("x", graph.Float32, 1, 2, 4))
	b.Block(func() { b.Result("y", b.Apply(mul(), x, b.Apply(scale(3), x))) })
	b.Block(func() { b.Result("z", b.Apply(mul(), x, x)) })
	p := compile(t, b)
	untorn(t, p)
	preciseSteps(t, p)
	rounds := 0
	for _, s := range p.Steps {
		if s.Spec.Name == "round" {
			rounds++
			if s.In[0].DType != graph.BFloat16 || s.Out[0].DType != graph.Float32 {
				t.Errorf("round makes %v of %v", s.Out[0].DType, s.In[0].DType)
			}
		}
	}
	if y, z := p.Results["y"].DType, p.Results["z"].DType; rounds != 1 || y != graph.Float32 || z != graph.BFloat16 {
		t.Errorf("%d tensors are widened, y is %v and z %v\n%v", rounds, y, z, p)
	}
}
