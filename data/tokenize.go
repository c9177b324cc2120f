package data

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/zeebo/xxh3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Bounds of the text in flight between the readers and the writer. A document larger than
// textInFlight is processed alone.
const (
	chunkBytes     = 1 << 20
	chunkDocuments = 1 << 10
	textInFlight   = 32 << 20
	// readersAhead is the number of chunks that a reader has ready while the files of others are
	// being written.
	readersAhead = 2
)

// preparer runs text through the tokenizer into the two splits: one goroutine per core reads files,
// one per core tokenises, and one writes the results in the order of the files.
type preparer struct {
	config            Config
	folder            string
	tok               Tokenizer
	layout            layout
	train, validation *splitWriter
	progress          func(Progress)
	// save is called when everything that has been written is in complete shards.
	save func(next position) error

	done  Progress
	empty int64
}

// position is a place in the text: a file, and a document in it.
type position struct {
	File     int   `json:"file"`
	Document int64 `json:"document"`
}

// chunk is the unit of work: some documents on their way through the preparer.
type chunk struct {
	raw   []rawDocument
	bytes int64 // of raw text, as accounted for by the semaphore
	files int   // files that end in this chunk
	held  bool  // its file is for validation
	next  position

	// Set by the tokenising goroutine before it closes done.
	done       chan struct{}
	documents  []document
	empty      int64
	byteCounts map[Split]*[256]int64
	err        error // including read errors
}

// document is one tokenised document.
type document struct {
	split Split
	bytes int64
	rows  []row
}

func (p *preparer) run(ctx context.Context, files []sourceFile, from position) error {
	g, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	space := semaphore.NewWeighted(textInFlight)
	work := make(chan *chunk)
	ordered := make(chan *chunk, 4*workers)

	g.Go(func() error {
		defer close(work)
		defer close(ordered)
		return readChunks(ctx, files, p.config.Text.JSONLField, from, func(c *chunk) error {
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

// readChunks reads the files from a position on, several at once, and emits their documents in
// order, a chunk at a time. A chunk contains documents of one file.
func readChunks(ctx context.Context, files []sourceFile, field string, from position, emit func(*chunk) error) error {
	g, ctx := errgroup.WithContext(ctx)
	// In order: a reader starts when there is room for its stream.
	streams := make(chan chan *chunk, runtime.GOMAXPROCS(0))
	g.Go(func() error {
		defer close(streams)
		for i := from.File; i < len(files); i++ {
			stream := make(chan *chunk, readersAhead)
			select {
			case streams <- stream:
			case <-ctx.Done():
				return ctx.Err()
			}
			start := position{File: i}
			if i == from.File {
				start.Document = from.Document
			}
			g.Go(func() error {
				defer close(stream)
				return files[i].stream(ctx, field, start, stream)
			})
		}
		return nil
	})
	g.Go(func() error {
		for stream := range streams {
			for c := range stream {
				if c.err != nil {
					return c.err
				}
				if err := emit(c); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return g.Wait()
}

// stream sends the file's documents from a position on. An error is sent the same way, so that what
// comes after it in order is not written.
func (f sourceFile) stream(ctx context.Context, field string, at position, out chan<- *chunk) error {
	fresh := func() *chunk { return &chunk{done: make(chan struct{}), held: f.validation} }
	send := func(c *chunk) error {
		select {
		case out <- c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c := fresh()
	err := f.read(ctx, field, at.Document, func(d rawDocument) error {
		c.raw = append(c.raw, d)
		c.bytes += int64(len(d.data))
		at.Document++
		if c.bytes < chunkBytes && len(c.raw) < chunkDocuments {
			return nil
		}
		full := c
		full.next = at
		c = fresh()
		return send(full)
	})
	if err != nil {
		return send(&chunk{err: err})
	}
	c.files, c.next = 1, position{File: at.File + 1}
	return send(c)
}

func (p *preparer) tokenize(c *chunk) {
	c.byteCounts = map[Split]*[256]int64{Train: {}, Validation: {}}
	for _, raw := range c.raw {
		text, err := p.text(raw)
		if err != nil {
			c.err = err
			return
		}
		if len(text) == 0 {
			c.empty++
			continue
		}
		split := p.config.splitOf(text, c.held)
		tokens, err := p.tok.Encode(make([]int32, 0, len(text)+1), text)
		if err != nil {
			c.err = p.failed(raw, err)
			return
		}
		tokens = append(tokens, p.tok.EOS())
		name := strings.ToValidUTF8(raw.name, "\uFFFD") // as Parquet's strings must be
		c.documents = append(c.documents, document{split, int64(len(text)), p.layout.rows(p.tok, name, tokens)})
		counts := c.byteCounts[split]
		for _, b := range text {
			counts[b]++
		}
	}
	c.raw = nil
}

// text returns a document's text.
func (p *preparer) text(d rawDocument) ([]byte, error) {
	text, err := d.text(p.config.Text.JSONLField)
	if err != nil {
		return nil, p.failed(d, err)
	}
	return text, nil
}

// failed returns the error of a document.
func (p *preparer) failed(d rawDocument, cause error) error {
	return fmt.Errorf("data.text: %s: %w", filepath.Join(p.folder, filepath.FromSlash(d.name)), cause)
}

// splitOf returns the split of a document, determined by its file if there are files for
// validation, and otherwise by the hash of its text.
func (c Config) splitOf(text []byte, held bool) Split {
	if len(c.Text.Validation) == 0 {
		// The upper 53 bits as a fraction in [0, 1).
		held = float64(xxh3.Hash(text)>>11)/(1<<53) < c.ValidationFraction
	}
	if held {
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
	if p.train.shard.Tokens >= p.layout.ShardTokens {
		if err := p.endShards(c.next); err != nil {
			return fmt.Errorf("data.shards: %w", err)
		}
	}
	if p.progress != nil {
		p.progress(p.done)
	}
	return nil
}

// endShards ends the shards of both splits, so that work can continue from here.
func (p *preparer) endShards(next position) error {
	for _, w := range []*splitWriter{p.train, p.validation} {
		if err := w.endShard(); err != nil {
			return err
		}
	}
	return p.save(next)
}
