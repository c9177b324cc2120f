package layers_test

import (
	"math"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/reference"
	"github.com/sambatrain/sambatrain/layers"
)

// TestMixed: a mixed-precision plan, run in float64 with its roundings, gives gradients close to
// those in float32, with weights large enough to amplify bfloat16's errors. Sums are fused into
// products: the last product of a sublayer adds the stream; gradients from weights that are
// adjacent in memory are one product (that of x_proj is added to the scan's); and no gradient is
// rounded by a separate op.
func TestMixed(t *testing.T) {
	m := small("mamba mlp swa mlp", 1, true)
	c := compileSmall(t, m)
	gradients := func(mixed bool) (*graph.Plan, *reference.Memory) {
		b := layers.NewBuilder(layers.Precision{Mixed: mixed})
		loss := m.Loss(b, b.Input("tokens", graph.Int32, rows, tokens), b.Input("targets", graph.Int32, rows, tokens))
		b.Result("loss", loss)
		if err := b.Gradients(loss); err != nil {
			t.Fatal(err)
		}
		p, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		mem := reference.NewMemory(p)
		for _, q := range p.Params {
			mem.Write(slot(q, graph.Params), c.w[q.Name])
		}
		mem.Write(p.Inputs["tokens"], c.tokens)
		mem.Write(p.Inputs["targets"], c.tokens)
		if err := mem.Run(p); err != nil {
			t.Fatal(err)
		}
		return p, mem
	}
	_, exact := gradients(false)
	p, rounded := gradients(true)
	count := map[string]int{}
	for _, s := range p.Steps {
		count[s.Spec.Name]++
	}
	for name, want := range map[string]int{"linear_add": 4, "linear_dx_add": 1, "round": 0, "rms_norm_backward_y_add": 4, "rms_norm_backward_y": 1} {
		if count[name] != want {
			t.Errorf("%d %s, want %d: %v", count[name], name, want, count)
		}
	}
	narrow := 0 // the gradients of the stream, but the last one, which the embedding reads
	for _, s := range p.Steps {
		if s.Out[0].DType == graph.Float24 {
			narrow++
		}
	}
	if narrow != 4 {
		t.Errorf("%d gradients of the stream in float24, want 4", narrow)
	}
	for _, q := range p.Params {
		want, got := exact.Read(slot(q, graph.Grads)).Data, rounded.Read(slot(q, graph.Grads)).Data
		if e := offBy(got, want); !(e < 0.4) {
			t.Errorf("the gradient of %s is off by %.2g", q.Name, e)
		}
	}
}

// offBy returns the norm of got - want, relative to that of want.
func offBy(got, want []float64) float64 {
	var off, all float64
	for i, w := range want {
		off += (got[i] - w) * (got[i] - w)
		all += w * w
	}
	return math.Sqrt(off / all)
}
