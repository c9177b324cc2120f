package generate

import (
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
	"github.com/sambatrain/sambatrain/layers"
)

// Names of the programs' inputs and results.
const (
	inputTokens   = "tokens"
	inputTargets  = "targets"
	inputSampling = "sampling"
	resultLogits  = "logits"
	resultNLL     = "nll"
	resultDrawn   = "drawn"
)

// want is what a program computes from its tokens.
type want uint8

const (
	wantLast  want = iota // logits of the last token's successor [B V]
	wantAll               // of every token's [B T V]
	wantNLL               // the cross-entropy of given successors [B T]
	wantDrawn             // a successor of one token, among the first vocab tokens [B 1]
)

// shape is a program's purpose and its number of tokens per row. begins: the sequences start with
// them. vocab and sampled are for wantDrawn only: without sampled it takes the most likely token.
type shape struct {
	want    want
	tokens  int
	begins  bool
	vocab   int
	sampled bool
}

// Plan is one call of a model that carries its state: b sequences, t tokens each. positions limits
// the length of a sequence if the model has full attention.
func Plan(m *layers.Model, b, t, positions int, p layers.Precision) (*graph.Plan, error) {
	return plan(m, b, shape{want: wantLast, tokens: t}, positions, p)
}

// CheckRoom returns an error if a device has no memory for the states of c.Rows sequences with c.Positions
// tokens each: with full attention they are far larger than initially.
func CheckRoom(dev graph.Device, m *layers.Model, c Config) error {
	free, err := dev.FreeMemory()
	if err != nil {
		return err
	}
	p, err := Plan(m, c.Rows, 1, c.Positions, c.Precision)
	if err != nil {
		return err
	}
	if want := 4 * int64(p.Sizes[graph.States]); free > 0 && want > free {
		return fmt.Errorf("their states take %.1f GB of memory, of %.1f GB that are free", float64(want)/1e9, float64(free)/1e9)
	}
	return nil
}

func plan(m *layers.Model, b int, s shape, positions int, p layers.Precision) (*graph.Plan, error) {
	g := layers.NewBuilder(p)
	g.SetCarry(graph.Carry{Positions: positions, Begins: s.begins})
	tokens := g.Input(inputTokens, graph.Int32, b, s.tokens)
	next := g.IntState("next_token", b, 1) // drawn by the last run
	switch s.want {
	case wantLast:
		g.Result(resultLogits, m.LastLogits(g, tokens))
	case wantAll:
		g.Result(resultLogits, m.Logits(g, tokens))
	case wantNLL:
		loss := m.EvalLoss(g, tokens, g.Input(inputTargets, graph.Int32, b, s.tokens))
		g.Result(resultNLL, loss.Output(1))
	case wantDrawn:
		var settings graph.Tensor
		if s.sampled {
			settings = g.Input(inputSampling, graph.Int32, b, sample.Words)
		}
		m.Draw(g, tokens, next, settings, s.vocab)
		g.Result(resultDrawn, next)
	}
	return g.Compile()
}

// programs are an engine's programs, made on first use. All share the states of base.
type programs struct {
	dev       graph.Device
	mem       graph.Memory
	model     *layers.Model
	rows      int
	precision layers.Precision
	positions int // capacity of the caches of full attention
	baseShape shape
	base      graph.Program
	loaded    map[shape]graph.Program
}

// open loads the base, the program with the largest arena.
func (p *programs) open() error {
	plan, err := plan(p.model, p.rows, p.baseShape, p.positions, p.precision)
	if err != nil {
		return err
	}
	if p.base, err = p.dev.Load(plan, p.mem); err != nil {
		return err
	}
	p.loaded = map[shape]graph.Program{p.baseShape: p.base}
	return nil
}

func (p *programs) get(s shape) (graph.Program, error) {
	if prog, ok := p.loaded[s]; ok {
		return prog, nil
	}
	plan, err := plan(p.model, p.rows, s, p.positions, p.precision)
	if err != nil {
		return nil, err
	}
	prog, err := p.dev.LoadBeside(plan, p.mem, p.base)
	if err != nil {
		return nil, err
	}
	p.loaded[s] = prog
	return prog, nil
}

// grow gives the caches room for more positions: it loads programs with larger states and moves the
// sequences to them.
func (p *programs) grow(positions int) error {
	larger := *p
	larger.positions = positions
	if err := larger.open(); err != nil {
		return fmt.Errorf("room for %d tokens: %w", positions, err)
	}
	for row := range p.rows {
		if err := larger.base.TakeState(row, p.base, row); err != nil {
			return errors.Join(err, larger.close())
		}
	}
	if err := p.close(); err != nil {
		return err
	}
	*p = larger
	return nil
}

// close frees the programs, the base last: the others use its states.
func (p *programs) close() error {
	for s, prog := range p.loaded {
		if s == p.baseShape {
			continue
		}
		if err := prog.Close(); err != nil {
			return err
		}
	}
	return p.base.Close()
}
