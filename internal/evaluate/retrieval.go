package evaluate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
)

// RetrievalOptions say how questions are asked.
type RetrievalOptions struct {
	// Samples is the number of questions per cell.
	Samples int
	Seed    uint64
	// Rows is the number of answers that are generated together, and Chunk the number of prompt
	// tokens per call; 0 means generate.DefaultChunk.
	Rows, Chunk int
	// Progress, if not nil, is told how many of all questions have been answered.
	Progress func(done, total int64)
}

// Cell is the score of questions of one kind.
type Cell struct {
	// Length is the number of tokens in a prompt; for a phone book the mean.
	Length int `json:"length"`
	// Depth is the position of the key, from 0 to 1; for passkeys only.
	Depth float64 `json:"depth"`
	// Entries is a phone book's size.
	Entries int `json:"entries,omitempty"`
	Asked   int `json:"asked"`
	Right   int `json:"right"`
}

// Share is the fraction of correct answers.
func (c Cell) Share() float64 { return float64(c.Right) / float64(c.Asked) }

// Retrieval is a model's exact-match scores.
type Retrieval struct {
	Run   string `json:"run"`
	Step  int64  `json:"step"`
	Seed  uint64 `json:"seed"`
	Cells []Cell `json:"cells"`
}

// Total returns all questions of some cells as one.
func Total(cells []Cell) Cell {
	var t Cell
	for _, c := range cells {
		t.Asked, t.Right = t.Asked+c.Asked, t.Right+c.Right
	}
	return t
}

// digits finds a passkey's answer: the first number in at most ten new tokens.
var digits = regexp.MustCompile(`\d+`)

// Passkey asks for passkeys in documents of each length at each depth. The questions depend only on
// the seed, the length and the depth.
func Passkey(ctx context.Context, m *train.Model, lengths []int, depths []float64, o RetrievalOptions) (*Retrieval, error) {
	keys, err := data.NewPasskeys(m.Tokenizer)
	if err != nil {
		return nil, err
	}
	var cells []Cell
	for _, n := range lengths {
		for _, d := range depths {
			cells = append(cells, Cell{Length: n, Depth: d})
		}
	}
	return retrieve(ctx, m, cells, o, task{
		tokens: 10,
		ask:    func(r *rand.Rand, c Cell) (data.Question, error) { return keys.Question(r, c.Length, c.Depth) },
		key:    func(c Cell) uint64 { return uint64(c.Length)<<20 | uint64(1000*c.Depth) },
		read:   digits.FindString,
	})
}

// Phonebook asks for numbers in books of each size.
func Phonebook(ctx context.Context, m *train.Model, entries []int, o RetrievalOptions) (*Retrieval, error) {
	books, err := data.NewPhonebooks(m.Tokenizer)
	if err != nil {
		return nil, err
	}
	var cells []Cell
	for _, n := range entries {
		cells = append(cells, Cell{Entries: n})
	}
	return retrieve(ctx, m, cells, o, task{
		tokens: 16,
		ask:    func(r *rand.Rand, c Cell) (data.Question, error) { return books.Question(r, c.Entries) },
		key:    func(c Cell) uint64 { return uint64(c.Entries) },
		read: func(text string) string {
			line, _, _ := strings.Cut(text, "\n")
			return strings.TrimSpace(line)
		},
	})
}

// task is what differs between the two measurements.
type task struct {
	tokens int // the maximum for an answer
	ask    func(r *rand.Rand, c Cell) (data.Question, error)
	key    func(c Cell) uint64
	read   func(text string) string // extracts the answer from the generated text
}

// retrieve asks all questions, one cell after the other, and generates the answers greedily. When
// ctx ends it returns the cells that are done, and Stopped.
func retrieve(ctx context.Context, m *train.Model, cells []Cell, o RetrievalOptions, t task) (*Retrieval, error) {
	if o.Samples < 1 {
		return nil, fmt.Errorf("samples: must be at least 1, is %d", o.Samples)
	}
	b, err := generate.NewBatch(m.Device, m.Memory, m.Model, generate.Config{
		Rows: min(max(1, o.Rows), o.Samples), Chunk: o.Chunk, Precision: m.Precision})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	res := &Retrieval{Run: m.Recipe.Run.Out, Step: m.Checkpoint.State.Step, Seed: o.Seed}
	for i, c := range cells {
		if o.Progress != nil {
			o.Progress(int64(i*o.Samples), int64(len(cells)*o.Samples))
		}
		err := cell(ctx, m, b, &c, o, t)
		if ctx.Err() != nil && i > 0 {
			return res, &Stopped{i * o.Samples, len(cells) * o.Samples, "questions"}
		}
		if err != nil {
			return nil, err
		}
		res.Cells = append(res.Cells, c)
	}
	return res, nil
}

// cell asks the questions of one cell.
func cell(ctx context.Context, m *train.Model, b *generate.Batch, c *Cell, o RetrievalOptions, t task) error {
	greedy, err := generate.NewSampler(generate.SamplerConfig{TopP: 1, Vocab: m.Tokenizer.VocabSize()})
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(o.Seed, t.key(*c)))
	tokens := 0
	for asked := 0; asked < o.Samples || b.Active() > 0; {
		if asked == o.Samples || !b.Free() {
			if err := b.Step(); err != nil {
				return err
			}
			continue
		}
		q, err := t.ask(r, *c)
		if err != nil {
			return err
		}
		asked++
		tokens += len(q.Prompt)
		stream := generate.NewStream(m.Tokenizer.Decode, q.Prompt, nil)
		var text []byte
		err = b.Add(ctx, generate.Request{
			Prompt: q.Prompt, Tokens: t.tokens, EOS: m.Tokenizer.EOS(), Sampler: greedy,
			Emit: func(token int32, _ []float32) bool {
				more, _ := stream.Push(token)
				text = append(text, more...)
				return true
			},
			End: func() {
				if t.read(string(append(text, stream.Rest()...))) == q.Answer {
					c.Right++
				}
			},
		})
		if err != nil {
			return err
		}
	}
	c.Asked = o.Samples
	if c.Length == 0 {
		c.Length = tokens / o.Samples
	}
	return nil
}
