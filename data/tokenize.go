package data

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Bounds of the text in flight between the reader and the writer. A document larger than all of textInFlight
// travels alone.
const (
	chunkBytes     = 1 << 20
	chunkDocuments = 1 << 10
	textInFlight   = 32 << 20
)

// preparer runs text through the tokenizer into the two splits: one goroutine reads, one on every core
// tokenises, and one writes the results in the order of reading.
type preparer struct {
	config            Config
	folder            string
	tok               Tokenizer
	layout            layout
	train, validation *splitWriter
	progress          func(Progress)

	done  Progress
	empty int64
}

// chunk is the unit of work: some documents on their way through the preparer.
type chunk struct {
	raw   []rawDocument
	bytes int64 // of raw text, as accounted for by the semaphore
	files int   // that end in this chunk

	// Set by the tokenising goroutine before it closes done.
	done       chan struct{}
	documents  []document
	empty      int64
	byteCounts map[Split]*[256]int64
	err        error
}

// document is one tokenised document.
type document struct {
	split Split
	bytes int64
	rows  []row
}

func (p *preparer) run(ctx context.Context, files []sourceFile) error {
	g, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	space := semaphore.NewWeighted(textInFlight)
	work := make(chan *chunk)
	ordered := make(chan *chunk, 4*workers)

	g.Go(func() error {
		defer close(work)
		defer close(ordered)
		return readChunks(ctx, files, func(c *chunk) error {
			if err := space.Acquire(ctx, min(c.bytes, textInFlight)); err != nil {
				return err
			}
			for _, to := range []chan *chunk{ordered, work} {
				select {
				case to <- c:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	for range workers {
		g.Go(func() error {
			for c := range work {
				p.tokenize(c)
				close(c.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for c := range ordered {
			select {
			case <-c.done:
			case <-ctx.Done():
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.write(c); err != nil {
				return err
			}
			space.Release(min(c.bytes, textInFlight))
		}
		return nil
	})
	return g.Wait()
}

// readChunks reads the files in order and emits their documents, a chunk at a time.
func readChunks(ctx context.Context, files []sourceFile, emit func(*chunk) error) error {
	fresh := func() *chunk { return &chunk{done: make(chan struct{})} }
	c := fresh()
	for _, f := range files {
		err := f.read(ctx, func(d rawDocument) error {
			c.raw = append(c.raw, d)
			c.bytes += int64(len(d.data))
			if c.bytes < chunkBytes && len(c.raw) < chunkDocuments {
				return nil
			}
			full := c
			c = fresh()
			return emit(full)
		})
		if err != nil {
			return err
		}
		c.files++
	}
	return emit(c)
}

func (p *preparer) tokenize(c *chunk) {
	c.byteCounts = map[Split]*[256]int64{Train: {}, Validation: {}}
	for _, raw := range c.raw {
		text, err := raw.text(p.config.Text.JSONLField)
		if err != nil {
			c.err = fmt.Errorf("data.text: %s: %w", filepath.Join(p.folder, filepath.FromSlash(raw.name)), err)
			return
		}
		if len(text) == 0 {
			c.empty++
			continue
		}
		split := splitOf(text, p.config.ValidationFraction)
		tokens := make([]int32, 0, len(text)+1)
		tokens = append(p.tok.Encode(tokens, text), p.tok.EOS())
		c.documents = append(c.documents, document{split, int64(len(text)), p.layout.rows(p.tok, raw.name, tokens)})
		counts := c.byteCounts[split]
		for _, b := range text {
			counts[b]++
		}
	}
	c.raw = nil
}

// splitOf says which side of the split a document falls on, by the hash of its text alone.
func splitOf(text []byte, validationFraction float64) Split {
	// The upper 53 bits as a fraction in [0, 1).
	if float64(xxh3.Hash(text)>>11)/(1<<53) < validationFraction {
		return Validation
	}
	return Train
}

func (p *preparer) write(c *chunk) error {
	if c.err != nil {
		return c.err
	}
	for _, d := range c.documents {
		w := p.train
		if d.split == Validation {
			w = p.validation
		}
		if err := w.add(d.rows); err != nil {
			return fmt.Errorf("data.shards: %w", err)
		}
		p.done.Documents++
		p.done.Bytes += d.bytes
		for _, r := range d.rows {
			p.done.Tokens += int64(len(r.tokens))
		}
	}
	for b := range 256 {
		p.train.info.ByteCounts[b] += c.byteCounts[Train][b]
		p.validation.info.ByteCounts[b] += c.byteCounts[Validation][b]
	}
	p.empty += c.empty
	p.done.Files += c.files
	if p.progress != nil {
		p.progress(p.done)
	}
	return nil
}
