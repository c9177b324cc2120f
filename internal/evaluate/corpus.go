package evaluate

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sambatrain/sambatrain/data"
)

// Corpus is a set of texts that a model is measured on.
type Corpus struct {
	Tokenizer data.Tokenizer
	texts     []opener
	// Unread are the files that were not read, because those before them have enough texts.
	Unread []string
}

// opener starts reading a text.
type opener func() (reader, error)

// reader fills dst with a text's next tokens.
type reader func(dst []int32) error

// Texts returns the number of texts.
func (c *Corpus) Texts() int { return len(c.texts) }

// errEnough ends the reading of a file.
var errEnough = errors.New("enough texts")

// Files cuts files, one after the other, into at most `texts` texts of n tokens; what is left of a
// file is in none. Files are read as by data.ReadText with how; a file's documents follow one another
// as in training, each preceded by an end of text.
func Files(ctx context.Context, tok data.Tokenizer, paths []string, how data.TextConfig, texts, n int) (*Corpus, error) {
	c := &Corpus{Tokenizer: tok}
	longest := 0
	for i, path := range paths {
		if len(c.texts) == texts {
			c.Unread = paths[i:]
			break
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return nil, fmt.Errorf("data.text: %s is a folder: name its files", path)
		}
		var ids []int32
		err := data.ReadText(ctx, path, how, func(text []byte) (err error) {
			if len(text) == 0 {
				return nil
			}
			if ids, err = tok.Encode(append(ids, tok.EOS()), text); err != nil {
				return fmt.Errorf("data.text: %s: %w", path, err)
			}
			if len(c.texts)+len(ids)/n >= texts {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return nil, err
		}
		longest = max(longest, len(ids))
		for ; len(ids) >= n && len(c.texts) < texts; ids = ids[n:] {
			c.texts = append(c.texts, inMemory(ids[:n]))
		}
	}
	if len(c.texts) == 0 {
		return nil, fmt.Errorf("data.text: the longest file has %d tokens, the longest length needs %d: name longer files, or lower --lengths", longest, n)
	}
	return c, nil
}

func inMemory(ids []int32) opener {
	return func() (reader, error) {
		left := ids
		return func(dst []int32) error {
			copy(dst, left)
			left = left[len(dst):]
			return nil
		}, nil
	}
}

// block is the number of tokens that are read from a split at once.
const block = 1024

// Split takes up to `texts` texts of n tokens, spread evenly over a split of token shards. In a
// text, documents follow one another as in training. Generated rows have no such stream.
func Split(ctx context.Context, c data.Config, split data.Split, texts, n int) (*Corpus, error) {
	if c.Generate.Task != "" {
		return nil, fmt.Errorf("data.generate: the run's rows are made up (%s), and no text: name files with --text", c.Generate.Task)
	}
	c.SeqLen = min(block, n)
	set, err := data.Open(ctx, c, split)
	if err != nil {
		return nil, err
	}
	each := int64((n + c.SeqLen - 1) / c.SeqLen) // blocks per text
	number := min(int64(texts), set.Blocks()/each)
	if number < 1 {
		return nil, fmt.Errorf("data.shards: the %s split of %s has %d tokens, the longest length needs %d: name long files with --text, or lower --lengths", split, c.Shards, set.Tokens(), n)
	}
	corpus := &Corpus{Tokenizer: set.Tokenizer()}
	c.SkipVerify = true // already done by the Open above
	for i := range number {
		first := i * (set.Blocks() - each) / max(1, number-1)
		// With its own data set, each text keeps its read position when several texts are read in
		// turn.
		corpus.texts = append(corpus.texts, func() (reader, error) {
			set, err := data.Open(ctx, c, split)
			return blocks(set, first), err
		})
	}
	return corpus, nil
}

// blocks reads a data set's stream, starting at a block.
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
				left = buf[:set.SeqLen()] // the last token is the first of the next block
			}
			n := copy(dst, left)
			dst, left = dst[n:], left[n:]
		}
		return nil
	}
}
