// Package generate runs trained models over sequences of any length. A call continues the sequences
// of the previous call: recurrent states, the tails of convolutions and the windows of attention
// are carried along, so that a token costs the same at any position, and memory does not grow. Only
// full attention keeps the keys and values of the whole sequence.
package generate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
	"github.com/sambatrain/sambatrain/layers"
)

const (
	// DefaultChunk is the number of tokens per row in one call.
	DefaultChunk = 512
	// MaxPositions is the length of the longest sequence in tokens: positions are int32.
	MaxPositions = math.MaxInt32
	// firstRoom is the initial capacity, in positions, of the caches of full attention.
	firstRoom = 1024
)

// Config describes the use of an engine.
type Config struct {
	// Rows is the number of sequences that are continued together; 0 means one.
	Rows int
	// Chunk is the maximum number of tokens per sequence in one call; 0 means DefaultChunk. A
	// sequence may be split anywhere: results differ only by rounding.
	Chunk int
	// Positions limits the length of a sequence in tokens; 0 means MaxPositions. Caches of full
	// attention grow up to it.
	Positions int
	// Room is the initial capacity, in positions, of the caches of full attention; 0 means about a
	// thousand.
	Room int
	// Precision is the precision of the programs.
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

// Engine continues a fixed number of sequences. It must be used by one goroutine only.
type Engine struct {
	Config
	programs  programs
	positions []int32
	parked    []bool
	in        [2][]int32 // tokens and targets of a call
	drawn     []int32    // a token below 0 for each row: it stands for the token that was drawn
	sampling  []int32    // sampling settings of the next draw
	ahead     shape      // the program that has started before Draw's next call; zero if none has
}

// New makes an engine that uses the parameters in mem.
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
			positions: c.Room, baseShape: shape{want: wantLast, tokens: c.Chunk, begins: c.Chunk > 1}},
		drawn: slices.Repeat([]int32{-1}, c.Rows), sampling: make([]int32, c.Rows*sample.Words),
	}
	if err := e.programs.open(); err != nil {
		return nil, fmt.Errorf("%d texts at once, %d tokens of each in a call: %w", c.Rows, c.Chunk, err)
	}
	return e, nil
}

// Close frees the engine's memory.
func (e *Engine) Close() error { return e.programs.close() }

// Position returns the number of tokens that a row's sequence has read.
func (e *Engine) Position(row int) int { return int(e.positions[row]) }

// StateBytes returns the memory of the sequences' states.
func (e *Engine) StateBytes() int64 { return 4 * int64(e.programs.base.Plan().Sizes[graph.States]) }

// HeldBytes returns the part of StateBytes that the sequences have filled: of attention's keys and
// values, those of tokens that were read.
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

// Reset starts a new sequence in every row.
func (e *Engine) Reset() error {
	clear(e.positions)
	clear(e.parked)
	e.ahead = shape{}
	return e.programs.base.ResetStates()
}

// Skip advances all sequences by n tokens without reading any, for measuring speed at a position:
// the contents of the states stay, and what was skipped counts as held.
func (e *Engine) Skip(n int) error {
	if err := e.notAhead(); err != nil {
		return err
	}
	if err := e.makeRoom(n); err != nil {
		return err
	}
	for row := range e.positions {
		e.positions[row] += int32(n)
	}
	return nil
}

// Park leaves a row unused: it has no sequence until Take gives it one. Its tokens in a call, and
// its results, are meaningless.
func (e *Engine) Park(row int) { e.parked[row], e.positions[row] = true, 0 }

// Take moves the sequence in a row of another engine of the same model to a row of this one.
func (e *Engine) Take(row int, from *Engine, fromRow int) error {
	if err := cmp.Or(e.notAhead(), from.notAhead()); err != nil {
		return err
	}
	if err := e.roomFor(from.Position(fromRow)); err != nil {
		return err
	}
	if err := e.programs.base.TakeState(row, from.programs.base, fromRow); err != nil {
		return err
	}
	e.positions[row], e.parked[row] = from.positions[fromRow], false
	return nil
}

// Next reads the next tokens [Rows T] of all sequences, any number of them, and returns the logits
// of what follows each sequence [Rows V]. They are valid until the next call.
func (e *Engine) Next(tokens []int32) ([]float32, error) {
	var last []float32
	err := e.each(wantLast, tokens, nil, func(_, _ int, scores []float32) error {
		last = scores
		return nil
	})
	return last, err
}

// Draw reads one token of each sequence [Rows] and draws the next one, among the first vocab tokens
// of the vocabulary. It returns the drawn tokens [Rows], valid until the next call. settings gives
// the sampling settings of each row and is called once for each token; if it is nil, the most
// likely token is taken, the first if several are equal.
//
// more says that the next call will be Draw with the tokens that this one returns, except in rows
// that are parked by then. An asynchronous device then starts the next call's work at once, with
// these settings, and the next call ignores its tokens. Until the next call, or Settle, the
// sequences can't be used in another way.
func (e *Engine) Draw(tokens []int32, vocab int, settings func(row int) sample.Settings, more bool) ([]int32, error) {
	s := shape{want: wantDrawn, tokens: 1, vocab: vocab, sampled: settings != nil}
	now := e.ahead
	if now == (shape{}) {
		if err := e.draw(s, tokens, settings); err != nil {
			return nil, err
		}
		now = s
	}
	p, err := e.programs.get(now)
	if err != nil {
		return nil, err
	}
	e.ahead = shape{}
	back := 0
	if more && e.programs.dev.Asynchronous() && e.fits(1) {
		switch err := e.draw(s, e.drawn, settings); {
		case err == nil:
			if e.ahead = s; s == now {
				back = 1
			}
		case !noMemory(err): // without memory the next call tries again
			return nil, err
		}
	}
	return p.Ints(resultDrawn, back)
}

// draw starts a run that draws what follows tokens. A token below 0 stands for the one that was
// drawn before.
func (e *Engine) draw(s shape, tokens []int32, settings func(row int) sample.Settings) error {
	// What may lack memory comes first: a call that is repeated must not ask for settings twice.
	if err := e.makeRoom(1); err != nil {
		return err
	}
	if _, err := e.programs.get(s); err != nil {
		return err
	}
	if s.sampled {
		for row := range e.Rows {
			settings(row).Put(e.sampling[row*sample.Words:])
		}
	}
	_, err := e.run(s, tokens, nil, 0, 1)
	return err
}

// Settle returns the tokens of the work that Draw has started for its next call, or nil if there is
// none.
func (e *Engine) Settle() ([]int32, error) {
	if e.ahead == (shape{}) {
		return nil, nil
	}
	return e.Draw(nil, e.ahead.vocab, nil, false)
}

func (e *Engine) notAhead() error {
	if e.ahead != (shape{}) {
		return errors.New("generate: the next tokens are being drawn; Settle returns them")
	}
	return nil
}

// Logits reads the next tokens [Rows T] of all sequences, and passes on the logits of the
// successors of tokens [at, at+n) of each row [Rows n V], as they are computed.
func (e *Engine) Logits(tokens []int32, each func(at, n int, scores []float32) error) error {
	return e.each(wantAll, tokens, nil, each)
}

// NLL reads the next tokens [Rows T] of all sequences, and passes on the cross-entropy, in nats, of
// the successors of tokens [at, at+n) of each row [Rows n], as they are computed. A target below 0
// is ignored, and its cross-entropy is 0.
func (e *Engine) NLL(tokens, targets []int32, each func(at, n int, nll []float32) error) error {
	if len(targets) != len(tokens) {
		return fmt.Errorf("generate: %d tokens and %d targets", len(tokens), len(targets))
	}
	return e.each(wantNLL, tokens, targets, each)
}

// each runs pieces of the sequences, largest first.
func (e *Engine) each(w want, tokens, targets []int32, each func(at, n int, out []float32) error) error {
	t := len(tokens) / e.Rows
	if t < 1 || t*e.Rows != len(tokens) {
		return fmt.Errorf("generate: %d tokens don't make %d rows", len(tokens), e.Rows)
	}
	if err := e.notAhead(); err != nil {
		return err
	}
	n := e.Chunk
	for at := 0; at < t; at += n {
		for n > t-at {
			n = (n + 3) / 4
		}
		// Sequences that start here have faster kernels than continued ones, unless there is only
		// one token.
		p, err := e.run(shape{want: w, tokens: n, begins: n > 1 && e.begin()}, tokens, targets, at, t)
		if err != nil {
			return err
		}
		name := resultLogits
		if w == wantNLL {
			name = resultNLL
		}
		out, err := p.Result(name)
		if err != nil {
			return err
		}
		if err := each(at, n, out); err != nil {
			return err
		}
	}
	return nil
}

// begin reports whether all sequences start with this call.
func (e *Engine) begin() bool {
	return !slices.Contains(e.parked, true) && slices.Max(e.positions) == 0
}

// run starts a program's run over tokens [at, at+s.tokens) of each row of t.
func (e *Engine) run(s shape, tokens, targets []int32, at, t int) (graph.Program, error) {
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
	if s.sampled {
		if err := p.WriteInts(inputSampling, e.sampling); err != nil {
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
	return p, nil
}

// makeRoom grows the caches of full attention if n more tokens of each sequence need it.
func (e *Engine) makeRoom(n int) error {
	return e.roomFor(int(slices.Max(e.positions)) + n)
}

// roomFor grows the caches of full attention if a sequence of `need` tokens needs it. They double,
// so that a sequence's keys and values are moved only a few times, or grow by their initial size if
// there is no memory for that. If there is no memory for this either, nothing changes.
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

// fits reports whether there is room for n more tokens of each sequence.
func (e *Engine) fits(n int) bool {
	need := int(slices.Max(e.positions)) + n
	return need <= e.Positions && (need <= e.programs.positions || !e.programs.model.CacheGrows())
}

// full reports whether a row's next token needs more room than there is.
func (e *Engine) full(row int) bool {
	return e.programs.model.CacheGrows() && e.Position(row) >= e.programs.positions
}

// forget releases the memory by which the caches of full attention have grown, and drops all
// sequences. It reports whether they had grown.
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
