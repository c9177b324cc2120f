package layers_test

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/layers"
)

// A small Samba, compiled with its backward pass and run once. Untrained, it gives all tokens about
// the same probability.
func ExampleModel_Loss() {
	m := layers.Defaults()
	m.VocabSize, m.DModel = 64, 32
	m.Attention.Window, m.MLP.DFF = 8, 64
	for _, mixer := range []string{"mamba", "mlp", "swa", "mlp"} {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: mixer})
	}
	loss, err := lossOf(&m, 2, 16)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.1f nats per token, of %.1f\n", loss, math.Log(64))
	// Output: 4.2 nats per token, of 4.2
}

// lossOf returns the loss on rows of arbitrary tokens, [B T].
func lossOf(m *layers.Model, rows, tokens int) (float32, error) {
	b := layers.NewBuilder(layers.Precision{})
	loss := m.Loss(b, b.Input("tokens", graph.Int32, rows, tokens), b.Input("targets", graph.Int32, rows, tokens))
	b.Result("loss", loss)
	if err := b.Gradients(loss); err != nil {
		return 0, err
	}
	plan, err := b.Compile()
	if err != nil {
		return 0, err
	}

	dev, err := cpu.New(2)
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	mem, err := dev.NewMemory(plan.Sizes)
	if err != nil {
		return 0, err
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, p := range plan.Params {
		w := make([]float32, p.Shape.Size())
		p.Init(r, w)
		if err := mem.Write(graph.Params, p.Offset, w); err != nil {
			return 0, err
		}
	}
	program, err := dev.Load(plan, mem)
	if err != nil {
		return 0, err
	}
	ids := make([]int32, rows*tokens)
	for _, input := range []string{"tokens", "targets"} {
		for i := range ids {
			ids[i] = r.Int32N(int32(m.VocabSize))
		}
		if err := program.WriteInts(input, ids); err != nil {
			return 0, err
		}
	}
	if err := program.Run(); err != nil {
		return 0, err
	}
	out := make([]float32, 1)
	err = program.Read("loss", out)
	return out[0], err
}
