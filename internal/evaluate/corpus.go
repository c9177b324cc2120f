package evaluate

import (
	"context"
	"fmt"
	"os"

	"github.com/sambatrain/sambatrain/data"
)

// Corpus is the texts that a model is measured on.
type Corpus struct {
	Tokenizer data.Tokenizer
	texts     []opener
	// LeftOut is the tokens that belong to no text, because what is left of a file or a
	// split is shorter than a text.
	LeftOut int64
}

// opener begins to read a text.
type opener func() (reader, error)

// reader fills dst with a text's next tokens.
type reader func(dst []int32) error

// Texts is how many there are.
func (c *Corpus) Texts() int { return len(c.texts) }

// Files cuts each file into texts of n tokens.
func Files(tok data.Tokenizer, paths []string, n int) (*Corpus, error) {
	c := &Corpus{Tokenizer: tok}
	longest := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--text: %w", err)
		}
		// As documents are in training: what comes before a text is the end of another.
		ids, err := tok.Encode([]int32{tok.EOS()}, text)
		if err != nil {
			return nil, fmt.Errorf("--text: %s: %w", path, err)
		}
		longest = max(longest, len(ids))
		for ; len(ids) >= n; ids = ids[n:] {
			part := ids[:n]
			c.texts = append(c.texts, func() (reader, error) {
				left := part
				return func(dst []int32) error {
					copy(dst, left)
					left = left[len(dst):]
					return nil
				}, nil
			})
		}
		c.LeftOut += int64(len(ids))
	}
	if len(c.texts) == 0 {
		return nil, fmt.Errorf("--text: the longest file has %d tokens, the longest length needs %d: name longer files, or lower --lengths", longest, n)
	}
	return c, nil
}

// block is the tokens that are read from a split at once.
const block = 1024

// Split takes up to texts texts of n tokens from a split of token shards, spread evenly
// over it. Documents follow one another in them as in training. Rows that are made up have no
// such stream.
func Split(ctx context.Context, c data.Config, split data.Split, texts, n int) (*Corpus, error) {
	if c.Generate.Task != "" {
		return nil, fmt.Errorf("data.generate: the run's rows are made up (%s), and no text: name files with --text", c.Generate.Task)
	}
	c.SeqLen = min(block, n)
	set, err := data.Open(ctx, c, split)
	if err != nil {
		return nil, err
	}
	each := int64((n + c.SeqLen - 1) / c.SeqLen) // blocks of a text
	number := min(int64(texts), set.Blocks()/each)
	if number < 1 {
		return nil, fmt.Errorf("data.shards: the %s split of %s has %d tokens, the longest length needs %d: name long files with --text, or lower --lengths", split, c.Shards, set.Tokens(), n)
	}
	corpus := &Corpus{Tokenizer: set.Tokenizer(), LeftOut: set.Tokens() - number*int64(n)}
	c.SkipVerify = true // done just now
	for i := range number {
		first := i * (set.Blocks() - each) / max(1, number-1)
		// A set of its own keeps the place where a text is read when others are read in turn.
		corpus.texts = append(corpus.texts, func() (reader, error) {
			set, err := data.Open(ctx, c, split)
			return blocks(set, first), err
		})
	}
	return corpus, nil
}

// blocks reads a set's stream from a block on.
func blocks(set *data.Dataset, first int64) reader {
	var left, buf []int32
	return func(dst []int32) error {
		for len(dst) > 0 {
			if len(left) == 0 {
				if buf == nil {
					buf = make([]int32, set.SeqLen()+1)
				}
				if err := set.Rows(first, 1, buf); err != nil {
					return err
				}
				first++
				left = buf[:set.SeqLen()] // the last token is the next block's first
			}
			n := copy(dst, left)
			dst, left = dst[n:], left[n:]
		}
		return nil
	}
}

// Limit leaves out all texts but the first n.
func (c *Corpus) Limit(n int) { c.texts = c.texts[:min(n, len(c.texts))] }
