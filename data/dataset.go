package data

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
)

// Dataset is the training or the validation split of a Config, as samples: rows of T+1 tokens, see
// splitReader. With a mixture it has one part for each source. Training samples are drawn from the
// parts by weight; validation samples are the blocks of all parts, one part after the other.
//
// It is safe for concurrent use. It keeps no file open.
type Dataset struct {
	tok    Tokenizer
	seqLen int
	parts  []*splitReader
	names  []string // of parts, in a mixture
	mix    mixture
	print  string

	generated *generator // instead of parts

	mu      sync.Mutex
	windows []window // for Rows, one for each part
}

// Open reads and checks the shards' footers and, unless c.SkipVerify is set, their checksums. The
// training split is shuffled by c.Seed, the validation split is in order.
func Open(ctx context.Context, c Config, split Split) (*Dataset, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	tok, err := NewTokenizer(c.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("data.tokenizer: %w", err)
	}
	d := &Dataset{tok: tok, seqLen: c.SeqLen}
	if c.Generate.Task != "" {
		return d, d.generate(c, split)
	}
	var weights []float64
	for i, s := range c.sources() {
		part, err := openSplit(ctx, s.config, split)
		if err == nil && part == nil && (len(c.Mixture) == 0 || split == Train) {
			err = s.config.lacks(split)
		}
		if err != nil {
			return nil, c.inSource(i, err)
		}
		if part == nil {
			continue
		}
		d.parts = append(d.parts, part)
		d.names = append(d.names, s.name)
		weights = append(weights, s.weight)
	}
	if len(d.parts) == 0 {
		return nil, errors.New("data.mixture: no source has a validation split: prepare them again with a data.validation_fraction or data.text.validation that fills it")
	}
	d.windows = make([]window, len(d.parts))
	d.print = d.parts[0].manifest.Fingerprint()
	if split == Validation {
		d.mix = inOrder(d.parts)
	} else {
		d.mix = byWeight(weights, c.Seed)
	}
	if len(c.Mixture) > 0 {
		d.print = mixtureFingerprint(d.parts, weights)
	}
	return d, nil
}

// lacks is the error of shards without a split.
func (c Config) lacks(split Split) error {
	return fmt.Errorf("data.shards: %s has no %s split: prepare another folder, with a data.validation_fraction or data.text.validation that fills it", c.Shards, split)
}

// generate gives the dataset generated rows.
func (d *Dataset) generate(c Config, split Split) (err error) {
	if d.generated, err = newGenerator(c, d.tok, split); err != nil {
		return err
	}
	d.print, d.names = d.generated.fingerprint(), []string{""}
	return d.Rows(0, 1, make([]int32, c.SeqLen+1)) // rejects rows that are too short
}

// Tokenizer is the tokenizer of the shards.
func (d *Dataset) Tokenizer() Tokenizer { return d.tok }

// Fingerprint identifies the tokens of all shards, and the weights of a mixture: runs with the same
// fingerprint, seq_len and seed see the same batches.
func (d *Dataset) Fingerprint() string { return d.print }

// UnigramBitsPerByte is that of the manifest; ok is false for a mixture, and for generated rows.
func (d *Dataset) UnigramBitsPerByte() (bits float64, ok bool) {
	if len(d.parts) != 1 {
		return 0, false
	}
	return d.parts[0].manifest.UnigramBitsPerByte()
}

// SeqLen is T.
func (d *Dataset) SeqLen() int { return d.seqLen }

// Tokens returns the length of the split's stream, or of all parts' streams, including end-of-text
// tokens.
func (d *Dataset) Tokens() int64 { return d.sum(func(p *splitReader) int64 { return p.tokens }) }

// Blocks returns the number of blocks in the split, or in all parts: without a mixture, the rows of
// an epoch.
func (d *Dataset) Blocks() int64 {
	if d.generated != nil {
		return generatedRows
	}
	return d.sum(func(p *splitReader) int64 { return p.order.blocks })
}

// LeftOver returns the number of tokens at the end of the streams that are not the target of any
// block.
func (d *Dataset) LeftOver() int64 {
	return d.sum(func(p *splitReader) int64 { return p.tokens - 1 - p.order.blocks*int64(p.seqLen) })
}

func (d *Dataset) sum(of func(*splitReader) int64) (n int64) {
	for _, p := range d.parts {
		n += of(p)
	}
	return n
}

// SourceRead says how much of a source has been read.
type SourceRead struct {
	Name   string  `json:"name,omitempty"` // empty without a mixture
	Rows   int64   `json:"rows"`
	Tokens int64   `json:"tokens"` // of the rows' targets
	Epochs float64 `json:"epochs"`
}

// Read counts, for each source, its rows among the first samples of training. It returns nil for
// generated rows.
func (d *Dataset) Read(samples int64) []SourceRead {
	var list []SourceRead
	for i, p := range d.parts {
		rows := d.mix.count(i, samples)
		list = append(list, SourceRead{d.names[i], rows, rows * int64(d.seqLen), float64(rows) / float64(p.order.blocks)})
	}
	return list
}

// Source returns the name of the source of a sample; it is empty without a mixture.
func (d *Dataset) Source(sample int64) string {
	if len(d.parts) < 2 {
		return d.names[0]
	}
	part, _ := d.mix.locate(sample)
	return d.names[part]
}

// Batch fills dst, (B, T+1) row-major, with the rows of global batch step: samples step*B to
// step*B+B-1. The inputs of a row are its first T tokens, the targets its last T.
func (d *Dataset) Batch(step int64, batch int, dst []int32) error {
	first, err := firstSample(step, batch)
	if err != nil {
		return err
	}
	return d.Rows(first, batch, dst)
}

// firstSample returns the first sample of a global batch.
func firstSample(step int64, batch int) (int64, error) {
	if batch < 1 || step < 0 || step > math.MaxInt64/int64(batch) {
		return 0, fmt.Errorf("data: no batch of %d rows at step %d", batch, step)
	}
	return step * int64(batch), nil
}

// Rows fills dst, (n, T+1) row-major, with n samples starting at number first. Without a mixture
// sample g is row g mod Blocks() of epoch g / Blocks(). It is fast if samples are close to those of
// the previous call; a Loader also reads ahead.
func (d *Dataset) Rows(first int64, n int, dst []int32) error {
	if err := d.checkRows(first, n, len(dst)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.generated != nil {
		return d.generated.fill(first, n, dst)
	}
	width := d.seqLen + 1
	for r := range n {
		part, sample := d.mix.locate(first + int64(r))
		p := d.parts[part]
		if err := p.row(&d.windows[part], p.loadNow, sample, dst[r*width:(r+1)*width]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dataset) checkRows(first int64, n, size int) error {
	if first < 0 || n < 1 || first > math.MaxInt64-int64(n) {
		return fmt.Errorf("data: no %d rows from sample %d", n, first)
	}
	if want := n * (d.seqLen + 1); size != want {
		return fmt.Errorf("data: a batch of %d rows has %d tokens, the buffer has room for %d", n, want, size)
	}
	return nil
}
