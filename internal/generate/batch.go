package generate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/sample"
	"github.com/sambatrain/sambatrain/layers"
)

// Request is a sequence to be continued.
type Request struct {
	// Prompt is the sequence's first tokens, at least one.
	Prompt []int32
	// Tokens is the maximum number of new tokens.
	Tokens int
	// EOS ends the sequence; it is not passed to Emit. If it is negative, no token ends it.
	EOS int32
	// Sampler draws the tokens. Sequences of a batch may share a sampler of temperature 0, but no
	// other.
	Sampler *Sampler
	// Emit receives each new token. Returning false ends the sequence.
	Emit func(token int32, scores []float32) bool
	// EndOfText, if not nil, is called when an EOS is drawn.
	EndOfText func(scores []float32)
	// Scores says that Emit and EndOfText receive the logits that the token was drawn from, valid
	// until they return; otherwise they receive nil. With Scores the host draws the tokens instead
	// of the device.
	Scores bool
	// End, if not nil, is called when the sequence has ended.
	End func()
	// Fail, if not nil, is called instead if the sequence ends because the device has no memory to
	// continue it. If it is nil, that ends the batch.
	Fail func(err error)
	// Read, if not nil, receives the logits of what follows tokens [at, at+n) of the prompt [n V],
	// as they are computed. It costs the prompt's product with the vocabulary.
	Read func(at, n int, scores []float32) error
	// Progress, if not nil, receives the number of prompt tokens that have been read: 0 first, all
	// of them last.
	Progress func(done int)
}

// Batch continues several sequences together, each from its own beginning to its own end. It must
// be used by one goroutine only.
type Batch struct {
	prompts, texts *Engine // the same if there is one row
	rows           []*row
	next, drawn    []int32
	vocab          int
}

// row is a sequence being continued, and its next input token.
type row struct {
	Request
	left int
}

func (r *row) end() {
	if r.End != nil {
		r.End()
	}
}

// NewBatch makes a batch of up to c.Rows sequences.
func NewBatch(dev graph.Device, mem graph.Memory, m *layers.Model, c Config) (*Batch, error) {
	c, err := c.resolved()
	if err != nil {
		return nil, err
	}
	b := &Batch{rows: make([]*row, c.Rows), next: make([]int32, c.Rows), drawn: make([]int32, c.Rows), vocab: m.VocabSize}
	one, all := c, c
	one.Rows, all.Chunk = 1, 1
	if b.prompts, err = New(dev, mem, m, one); err != nil {
		return nil, err
	}
	b.texts = b.prompts
	if c.Rows > 1 {
		if b.texts, err = New(dev, mem, m, all); err != nil {
			return nil, errors.Join(err, b.prompts.Close())
		}
		for r := range c.Rows {
			b.texts.Park(r)
		}
	}
	return b, nil
}

// Close frees the engines.
func (b *Batch) Close() error {
	err := b.prompts.Close()
	if b.texts != b.prompts {
		err = errors.Join(err, b.texts.Close())
	}
	return err
}

// Active returns the number of active sequences.
func (b *Batch) Active() int {
	n := 0
	for _, r := range b.rows {
		if r != nil {
			n++
		}
	}
	return n
}

// Free reports whether there is a row for another sequence.
func (b *Batch) Free() bool { return b.Active() < len(b.rows) }

// Add reads a prompt and draws the first token of its continuation. There must be a free row. It
// fails when ctx ends before the prompt has been read, and with a graph.MemoryError if the device
// has no memory for the sequence; the batch can be used afterwards.
func (b *Batch) Add(ctx context.Context, q Request) error {
	err := b.add(ctx, q)
	if noMemory(err) {
		// Others may need the memory that this one releases.
		if _, broken := b.prompts.forget(); broken != nil {
			return fmt.Errorf("%v, and then: %v", err, broken)
		}
	}
	return err
}

func noMemory(err error) bool {
	var memory *graph.MemoryError
	return errors.As(err, &memory)
}

func (b *Batch) add(ctx context.Context, q Request) error {
	if len(q.Prompt) == 0 {
		return errors.New("generate: the prompt is empty; give at least one token")
	}
	if err := b.settle(); err != nil {
		return err
	}
	at := 0
	for b.rows[at] != nil {
		at++
	}
	if err := b.prompts.Reset(); err != nil {
		return err
	}
	scores, err := b.read(ctx, q)
	if err != nil {
		return err
	}
	r := &row{Request: q, left: q.Tokens}
	if q.Tokens == 0 || !b.advance(at, r, q.Sampler.Next(scores), scores) {
		r.end()
		return nil
	}
	if b.texts != b.prompts {
		if err := b.texts.Take(at, b.prompts, 0); err != nil {
			return err
		}
	}
	b.rows[at] = r
	return nil
}

// read processes a prompt and returns the logits of what follows it.
func (b *Batch) read(ctx context.Context, q Request) (scores []float32, err error) {
	for at := 0; at < len(q.Prompt); at += b.prompts.Chunk {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if q.Progress != nil {
			q.Progress(at)
		}
		piece := q.Prompt[at:min(at+b.prompts.Chunk, len(q.Prompt))]
		if q.Read == nil {
			scores, err = b.prompts.Next(piece)
		} else {
			err = b.prompts.Logits(piece, func(from, n int, s []float32) error {
				scores = s[(n-1)*b.vocab:]
				return q.Read(at+from, n, s)
			})
		}
		if err != nil {
			return nil, err
		}
	}
	if q.Progress != nil {
		q.Progress(len(q.Prompt))
	}
	return scores, nil
}

// advance gives a sequence its next token, and reports whether it continues.
func (b *Batch) advance(at int, r *row, token int32, scores []float32) bool {
	r.left--
	if token == r.EOS {
		if r.EndOfText != nil {
			r.EndOfText(scores)
		}
		return false
	}
	if !r.Emit(token, scores) || r.left == 0 {
		return false
	}
	b.next[at] = token
	return true
}

// drawing is what one step draws: a token for each row [Rows], and the logits [Rows V] if the host
// has drawn the tokens.
type drawing struct {
	tokens []int32
	scores []float32
}

// Step draws one more token for each sequence. A sequence that ends leaves its row.
func (b *Batch) Step() error {
	if b.Active() == 0 {
		return nil
	}
	d, err := b.once()
	if noMemory(err) {
		d, err = b.withoutRoom(err)
	}
	if err == nil {
		b.handOn(d)
	}
	return err
}

func (b *Batch) once() (drawing, error) {
	if vocab, sampled, ok := b.onDevice(); ok {
		settings := b.settings
		if !sampled {
			settings = nil
		}
		more := slices.ContainsFunc(b.rows, func(r *row) bool { return r != nil && r.left > 1 })
		tokens, err := b.texts.Draw(b.next, vocab, settings, more)
		return drawing{tokens: tokens}, err
	}
	scores, err := b.texts.Next(b.next)
	if err == nil {
		b.draw(scores)
	}
	return drawing{b.drawn, scores}, err
}

// onDevice reports whether the device can draw the next tokens, and whether any of them is sampled.
// It can if no sequence needs logits and all have the same vocabulary.
func (b *Batch) onDevice() (vocab int, sampled, ok bool) {
	for _, r := range b.rows {
		if r == nil {
			continue
		}
		c := r.Sampler.config
		if r.Scores || vocab != 0 && c.Vocab != vocab {
			return 0, false, false
		}
		vocab, sampled = c.Vocab, sampled || c.Temperature > 0
	}
	return vocab, sampled, vocab != 0
}

// settings returns the sampling settings of a row's next token.
func (b *Batch) settings(at int) sample.Settings {
	if r := b.rows[at]; r != nil {
		return r.Sampler.settings()
	}
	return sample.Settings{TopP: 1}
}

// settle passes on the tokens that the device has drawn ahead.
func (b *Batch) settle() error {
	tokens, err := b.texts.Settle()
	if err == nil {
		b.handOn(drawing{tokens: tokens})
	}
	return err
}

func (b *Batch) handOn(d drawing) {
	for i, r := range b.rows {
		if r == nil || d.tokens == nil {
			continue
		}
		var scores []float32
		if d.scores != nil {
			scores = d.scores[i*b.vocab:][:b.vocab]
		}
		if !b.advance(i, r, d.tokens[i], scores) {
			r.end()
			b.leave(i)
		}
	}
}

// withoutRoom retries a step for which the device had no memory. It releases the memory of the last
// prompt, and if that is not enough, ends the sequences that are too long. Nothing is drawn if none
// is left.
func (b *Batch) withoutRoom(cause error) (d drawing, err error) {
	if b.prompts != b.texts {
		if freed, err := b.prompts.forget(); err != nil {
			return d, err
		} else if freed {
			if d, cause = b.once(); !noMemory(cause) {
				return d, cause
			}
		}
	}
	for i, r := range b.rows {
		if r == nil || !b.texts.full(i) && len(b.rows) > 1 {
			continue
		}
		if r.Fail == nil {
			return d, cause
		}
		r.Fail(cause)
		b.leave(i)
	}
	if b.prompts == b.texts {
		_, err := b.texts.forget()
		return drawing{}, err
	}
	if b.Active() == 0 {
		return drawing{}, nil
	}
	return b.once()
}

// leave frees a row.
func (b *Batch) leave(row int) {
	b.rows[row] = nil
	b.texts.Park(row)
}

// Tokens are drawn on several threads, one per drawScores logits: more threads would wake up after
// one has already processed a few rows.
const drawThreads, drawScores = 8, 1 << 16

// draw draws a token for each sequence, on several threads: each takes the next row until there are
// none left.
func (b *Batch) draw(scores []float32) {
	var next atomic.Int32
	take := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(b.rows) {
				return
			}
			if r := b.rows[i]; r != nil {
				b.drawn[i] = r.Sampler.Next(scores[i*b.vocab:][:b.vocab])
			}
		}
	}
	var wait sync.WaitGroup
	active := b.Active()
	for range min(active, drawThreads, active*b.vocab/drawScores) - 1 {
		wait.Go(take)
	}
	take()
	wait.Wait()
}

// Run continues all sequences, as many at once as there are rows, until each has ended.
func (b *Batch) Run(ctx context.Context, list []Request) error {
	for len(list) > 0 || b.Active() > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(list) > 0 && b.Free() {
			if err := b.Add(ctx, list[0]); err != nil {
				return err
			}
			list = list[1:]
			continue
		}
		if err := b.Step(); err != nil {
			return err
		}
	}
	return nil
}
