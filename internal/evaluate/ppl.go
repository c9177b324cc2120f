// Package evaluate measures trained models over long texts: perplexity by length and by
// position, and retrieval of information from far back.
package evaluate

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/rss"
	"github.com/sambatrain/sambatrain/internal/train"
)

// PPLOptions say what to measure.
type PPLOptions struct {
	// Lengths are context lengths in tokens, in increasing order. The last one is the length of a
	// text.
	Lengths []int
	// Rows is the number of texts that are read together, and Chunk the number of tokens per call;
	// 0 means generate.DefaultChunk.
	Rows, Chunk int
	// Progress, if not nil, is told from time to time how many of all tokens are done.
	Progress func(done, total int64)
}

// PPL is a model's perplexity.
type PPL struct {
	Run   string `json:"run"`
	Step  int64  `json:"step"`
	Texts int    `json:"texts"`
	// Lengths are scores over all of the first Length tokens, as if the texts ended there.
	Lengths []LengthScore `json:"lengths"`
	// Positions are scores over the tokens [From, To) of the texts.
	Positions []PositionScore `json:"positions"`
	// StateBytes is the size of the texts' states, which only grows with full attention. PeakRSS is
	// that of the process, 0 if it is unknown.
	StateBytes      int64   `json:"state_bytes"`
	PeakRSS         int64   `json:"peak_rss"`
	TokensPerSecond float64 `json:"tokens_per_second"`
}

// Score is a mean over some tokens.
type Score struct {
	Tokens     int64   `json:"tokens"`
	Loss       float64 `json:"loss"` // nats per token
	Perplexity float64 `json:"perplexity"`
	// BitsPerByte is 0 if all tokens were ends of text.
	BitsPerByte float64 `json:"bits_per_byte"`
}

// LengthScore is the score of texts of a length.
type LengthScore struct {
	Length int `json:"length"`
	Score
}

// PositionScore is the score of tokens at some positions.
type PositionScore struct {
	From int `json:"from"`
	To   int `json:"to"`
	Score
}

// sum holds the sums from which a score is computed.
type sum struct {
	nats          float64
	tokens, bytes int64
}

func (s *sum) add(o sum) {
	s.nats += o.nats
	s.tokens += o.tokens
	s.bytes += o.bytes
}

func (s sum) score() Score {
	loss := s.nats / float64(s.tokens)
	r := Score{Tokens: s.tokens, Loss: loss, Perplexity: math.Exp(loss)}
	if s.bytes > 0 {
		r.BitsPerByte = data.BitsPerByte(s.nats, s.bytes)
	}
	return r
}

// Stopped is the error of a measurement that was asked to stop: its results are from complete
// texts, but not from all of them.
type Stopped struct {
	Done, Of int
	What     string // texts or questions
}

func (s *Stopped) Error() string {
	return fmt.Sprintf("stopped after %d of %d %s; the figures are of those", s.Done, s.Of, s.What)
}

// edges returns the bounds of the position intervals: four for each doubling from 64 on, and all
// lengths.
func edges(lengths []int) []int {
	longest := lengths[len(lengths)-1]
	list := append([]int{0}, lengths...)
	for k := 0; ; k++ {
		e := int(math.Round(64 * math.Exp2(float64(k)/4)))
		if e >= longest {
			break
		}
		list = append(list, e)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// MeasurePPL reads the texts of a corpus, each of the longest length plus one token, from beginning
// to end with carried state: one pass gives the scores for all lengths. When ctx ends it returns
// the results of complete texts, and Stopped.
func MeasurePPL(ctx context.Context, m *train.Model, c *Corpus, o PPLOptions) (*PPL, error) {
	bounds := edges(o.Lengths)
	rows := max(1, min(o.Rows, c.Texts()))
	e, err := generate.New(m.Device, m.Memory, m.Model, generate.Config{
		Rows: rows, Chunk: o.Chunk, Positions: bounds[len(bounds)-1], Precision: m.Precision})
	if err != nil {
		return nil, err
	}
	defer e.Close()
	p := pass{engine: e, corpus: c, bounds: bounds, total: make([]sum, len(bounds)-1)}
	started := time.Now()
	length := int64(bounds[len(bounds)-1])
	for p.first < c.Texts() {
		n := int64(min(rows, c.Texts()-p.first))
		err := p.run(ctx, func(done int) {
			if o.Progress != nil {
				o.Progress(int64(p.first)*length+int64(done)*n, int64(c.Texts())*length)
			}
		})
		if ctx.Err() != nil && p.first > 0 {
			return p.result(m, o.Lengths, started), &Stopped{p.first, c.Texts(), "texts"}
		}
		if err != nil {
			return nil, err
		}
	}
	return p.result(m, o.Lengths, started), nil
}

// pass is one pass over a corpus, several texts at a time.
type pass struct {
	engine *generate.Engine
	corpus *Corpus
	bounds []int
	total  []sum // for each interval of bounds
	first  int   // texts done
}

// lane is a text that is being read.
type lane struct {
	read   reader
	tokens []int32 // those of a call, and one more
	last   int32   // the extra token of the previous call
}

// next reads the next t tokens.
func (l *lane) next(t int, begins bool) error {
	if begins {
		if err := l.read(l.tokens[:1]); err != nil {
			return err
		}
		l.last = l.tokens[0]
	}
	l.tokens[0] = l.last
	err := l.read(l.tokens[1 : t+1])
	l.last = l.tokens[t]
	return err
}

// run reads the next texts, as many as the engine has rows, and adds their scores.
func (p *pass) run(ctx context.Context, progress func(done int)) error {
	e, longest := p.engine, p.bounds[len(p.bounds)-1]
	if err := e.Reset(); err != nil {
		return err
	}
	lanes := make([]lane, min(e.Rows, p.corpus.Texts()-p.first))
	for i := range lanes {
		read, err := p.corpus.texts[p.first+i]()
		if err != nil {
			return err
		}
		lanes[i] = lane{read: read, tokens: make([]int32, e.Chunk+1)}
	}
	sums := make([]sum, len(p.total))
	tokens, targets := make([]int32, e.Rows*e.Chunk), make([]int32, e.Rows*e.Chunk)
	for at := 0; at < longest; at += e.Chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		t := min(e.Chunk, longest-at)
		for i := range lanes {
			if err := lanes[i].next(t, at == 0); err != nil {
				return err
			}
			copy(tokens[i*t:(i+1)*t], lanes[i].tokens)
			copy(targets[i*t:(i+1)*t], lanes[i].tokens[1:])
		}
		for i := len(lanes) * t; i < e.Rows*t; i++ { // rows without a text don't count
			tokens[i], targets[i] = 0, -1
		}
		err := e.NLL(tokens[:e.Rows*t], targets[:e.Rows*t], func(from, n int, nll []float32) error {
			for i := range lanes {
				p.add(sums, at+from, nll[i*n:(i+1)*n], targets[i*t+from:])
			}
			return nil
		})
		if err != nil {
			return err
		}
		progress(at + t)
	}
	for i, s := range sums {
		p.total[i].add(s)
	}
	p.first += len(lanes)
	return nil
}

// add adds the cross-entropies of the tokens from `position` on to the sums of their intervals.
func (p *pass) add(sums []sum, position int, nll []float32, targets []int32) {
	k, exact := slices.BinarySearch(p.bounds, position)
	if !exact {
		k--
	}
	for i, x := range nll {
		if position+i >= p.bounds[k+1] {
			k++
		}
		sums[k].add(sum{float64(x), 1, int64(p.corpus.Tokenizer.TokenBytes(targets[i]))})
	}
}

func (p *pass) result(m *train.Model, lengths []int, started time.Time) *PPL {
	r := &PPL{Run: m.Recipe.Run.Out, Step: m.Checkpoint.State.Step, Texts: p.first, StateBytes: p.engine.StateBytes(), PeakRSS: rss.Peak()}
	var all sum
	for i, s := range p.total {
		from, to := p.bounds[i], p.bounds[i+1]
		all.add(s)
		r.Positions = append(r.Positions, PositionScore{from, to, s.score()})
		if slices.Contains(lengths, to) {
			r.Lengths = append(r.Lengths, LengthScore{to, all.score()})
		}
	}
	r.TokensPerSecond = float64(all.tokens) / time.Since(started).Seconds()
	return r
}
