// Package generate runs trained models over texts of any length. A call continues the
// texts of the call before: recurrent states, the tails of convolutions and the windows
// of attention are carried along, so that a token costs the same at any position, and
// memory does not grow; only full attention keeps the keys and values of the whole text.
package generate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/layers"
)

const (
	// DefaultChunk is the tokens of a row in one call.
	DefaultChunk = 512
	// MaxPositions is the tokens of the longest text: positions are int32.
	MaxPositions = math.MaxInt32
	// firstRoom is the positions for which caches of full attention have room at first.
	firstRoom = 1024
)

// Config says what an engine is made for.
type Config struct {
	// Rows is how many texts go on together, 0 is one.
	Rows int
	// Chunk is how many tokens of each text one call takes at most; 0 is DefaultChunk.
	// A text may be cut anywhere: results differ by rounding alone.
	Chunk int
	// Positions bounds a text's length in tokens; 0 is MaxPositions. Caches of full
	// attention grow up to it.
	Positions int
	// Room is the positions for which caches of full attention have room at first; 0 is a
	// thousand or so.
	Room int
	// Precision is what programs compute in.
	Precision layers.Precision
}

func (c Config) resolved() (Config, error) {
	if c.Rows == 0 {
		c.Rows = 1
	}
	if c.Chunk == 0 {
		c.Chunk = DefaultChunk
	}
	if c.Positions == 0 {
		c.Positions = MaxPositions
	}
	if c.Positions > MaxPositions {
		return c, fmt.Errorf("generate: a text of %d tokens is longer than %d", c.Positions, MaxPositions)
	}
	if c.Rows < 1 || c.Chunk < 1 || c.Positions < 1 {
		return c, fmt.Errorf("generate: %d rows of chunks of %d tokens, %d positions: each must be at least 1", c.Rows, c.Chunk, c.Positions)
	}
	c.Chunk = min(c.Chunk, c.Positions)
	c.Room = min(c.Positions, max(c.Room, firstRoom, c.Chunk))
	return c, nil
}

// Engine continues a fixed number of texts. It is for one goroutine.
type Engine struct {
	Config
	programs  programs
	positions []int32
	parked    []bool
	in        [2][]int32 // tokens and targets of a call
}

// New makes an engine over parameters in mem.
func New(dev graph.Device, mem graph.Memory, m *layers.Model, c Config) (*Engine, error) {
	c, err := c.resolved()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		Config:    c,
		positions: make([]int32, c.Rows), parked: make([]bool, c.Rows),
		in: [2][]int32{make([]int32, c.Rows*c.Chunk), make([]int32, c.Rows*c.Chunk)},
		programs: programs{dev: dev, mem: mem, model: m, rows: c.Rows, precision: c.Precision,
			positions: c.Room, baseShape: shape{wantLast, c.Chunk, c.Chunk > 1}},
	}
	if err := e.programs.open(); err != nil {
		return nil, fmt.Errorf("%d texts at once, %d tokens of each in a call: %w", c.Rows, c.Chunk, err)
	}
	return e, nil
}

// Close frees the engine's memory.
func (e *Engine) Close() error { return e.programs.close() }

// Position is how many tokens of a row's text were taken.
func (e *Engine) Position(row int) int { return int(e.positions[row]) }

// StateBytes is the memory that the texts' states take.
func (e *Engine) StateBytes() int64 { return 4 * int64(e.programs.base.Plan().Sizes[graph.States]) }

// HeldBytes is the part of StateBytes that the texts have filled: of the keys and values
// of attention, those of tokens that were taken.
func (e *Engine) HeldBytes() int64 {
	n := int64(0)
	for name, s := range e.programs.base.Plan().States {
		bytes := int64(s.Shape.Size() * s.DType.Size())
		if strings.HasSuffix(name, ".key") || strings.HasSuffix(name, ".value") {
			slots := int64(s.Shape[1])
			bytes = bytes / slots * min(slots, int64(slices.Max(e.positions)))
		}
		n += bytes
	}
	return n
}

// Reset begins a new text in every row.
func (e *Engine) Reset() error {
	clear(e.positions)
	clear(e.parked)
	return e.programs.base.ResetStates()
}

// Skip moves all texts n tokens on without reading any, for measuring speed at a position:
// what the states hold stays, and what was skipped counts as held.
func (e *Engine) Skip(n int) error {
	if err := e.makeRoom(n); err != nil {
		return err
	}
	for row := range e.positions {
		e.positions[row] += int32(n)
	}
	return nil
}

// Park leaves a row out: it has no text until Take gives it one. Its tokens in a call
// mean nothing, and its results neither.
func (e *Engine) Park(row int) { e.parked[row], e.positions[row] = true, 0 }

// Take moves the text of a row of another engine of the same model to a row of this
// one.
func (e *Engine) Take(row int, from *Engine, fromRow int) error {
	if err := e.roomFor(from.Position(fromRow)); err != nil {
		return err
	}
	if err := e.programs.base.TakeState(row, from.programs.base, fromRow); err != nil {
		return err
	}
	e.positions[row], e.parked[row] = from.positions[fromRow], false
	return nil
}

// Next takes the next tokens [Rows T] of all texts, any number of them, and returns the
// scores of what follows each text [Rows V]. They are good until the next call.
func (e *Engine) Next(tokens []int32) ([]float32, error) {
	var last []float32
	err := e.each(wantLast, tokens, nil, func(_, _ int, scores []float32) error {
		last = scores
		return nil
	})
	return last, err
}

// Logits takes the next tokens [Rows T] of all texts, and hands on the scores of the
// successors of tokens [at, at+n) of each row [Rows n V], as they are computed.
func (e *Engine) Logits(tokens []int32, each func(at, n int, scores []float32) error) error {
	return e.each(wantAll, tokens, nil, each)
}

// NLL takes the next tokens [Rows T] of all texts, and hands on the cross-entropy, in
// nats, of the successors of tokens [at, at+n) of each row [Rows n], as they are
// computed. A target below 0 is ignored, and its cross-entropy 0.
func (e *Engine) NLL(tokens, targets []int32, each func(at, n int, nll []float32) error) error {
	if len(targets) != len(tokens) {
		return fmt.Errorf("generate: %d tokens and %d targets", len(tokens), len(targets))
	}
	return e.each(wantNLL, tokens, targets, each)
}

// each runs pieces of the texts, largest first.
func (e *Engine) each(w want, tokens, targets []int32, each func(at, n int, out []float32) error) error {
	t := len(tokens) / e.Rows
	if t < 1 || t*e.Rows != len(tokens) {
		return fmt.Errorf("generate: %d tokens don't make %d rows", len(tokens), e.Rows)
	}
	n := e.Chunk
	for at := 0; at < t; at += n {
		for n > t-at {
			n = (n + 3) / 4
		}
		// Whole texts have faster kernels than texts that go on; one token is too few for them.
		out, err := e.call(shape{w, n, n > 1 && e.begin()}, tokens, targets, at, t)
		if err != nil {
			return err
		}
		if err := each(at, n, out); err != nil {
			return err
		}
	}
	return nil
}

// begin reports whether all texts begin.
func (e *Engine) begin() bool {
	return !slices.Contains(e.parked, true) && slices.Max(e.positions) == 0
}

// call runs tokens [at, at+s.tokens) of each row of t.
func (e *Engine) call(s shape, tokens, targets []int32, at, t int) ([]float32, error) {
	if err := e.makeRoom(s.tokens); err != nil {
		return nil, err
	}
	p, err := e.programs.get(s)
	if err != nil {
		return nil, err
	}
	for i, in := range [][]int32{tokens, targets} {
		if in == nil {
			continue
		}
		buf := e.in[i][:0]
		for row := range e.Rows {
			buf = append(buf, in[row*t+at:row*t+at+s.tokens]...)
		}
		if err := p.WriteInts([]string{inputTokens, inputTargets}[i], buf); err != nil {
			return nil, err
		}
	}
	if _, ok := p.Plan().Inputs[graph.PositionInput]; ok {
		if err := p.WriteInts(graph.PositionInput, e.positions); err != nil {
			return nil, err
		}
	}
	if err := p.Run(); err != nil {
		return nil, err
	}
	for row := range e.positions {
		if !e.parked[row] {
			e.positions[row] += int32(s.tokens)
		}
	}
	if s.want == wantNLL {
		return p.Result(resultNLL)
	}
	return p.Result(resultLogits)
}

// makeRoom grows the caches of full attention where n more tokens of each text want it.
func (e *Engine) makeRoom(n int) error {
	return e.roomFor(int(slices.Max(e.positions)) + n)
}

// roomFor grows the caches of full attention where a text of so many tokens wants it. They
// double, so that a text's keys and values are moved a few times at most, or grow by as much as
// they begin with where there is no memory for that. Where there is none for this either, all is
// as it was.
func (e *Engine) roomFor(need int) error {
	if need > e.Positions {
		return fmt.Errorf("generate: the text is longer than the %d tokens that there is room for", e.Positions)
	}
	if need <= e.programs.positions || !e.programs.model.CacheGrows() {
		return nil
	}
	err := e.programs.grow(min(e.Positions, max(need, 2*e.programs.positions)))
	var memory *graph.MemoryError
	if errors.As(err, &memory) {
		err = e.programs.grow(min(e.Positions, need+firstRoom))
	}
	return err
}

// full reports whether a row's next token wants more room than there is.
func (e *Engine) full(row int) bool {
	return e.programs.model.CacheGrows() && e.Position(row) >= e.programs.positions
}

// forget gives back what the caches of full attention have grown by, and with it all texts.
// It reports whether they had grown.
func (e *Engine) forget() (bool, error) {
	grown := e.programs.positions > e.Room
	if grown {
		if err := e.programs.close(); err != nil {
			return true, err
		}
		e.programs.positions = e.Room
		if err := e.programs.open(); err != nil {
			return true, err
		}
	}
	return grown, e.Reset()
}
