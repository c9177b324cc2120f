package data

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Generated is the `data.generate:` section: rows that are generated as they are read, without text
// or shards.
type Generated struct {
	// Task is what a row asks for: passkey or phonebook; empty means that shards are read.
	Task string `yaml:"task"`

	// Loss selects the tokens that count: answer, which is the answer and the end of text after it,
	// or all of the row.
	Loss string `yaml:"loss"`
}

// Values of data.generate.
const (
	TaskPasskey   = "passkey"
	TaskPhonebook = "phonebook"
	LossAnswer    = "answer"
	LossAll       = "all"
)

func (g Generated) validate() error {
	if tasks := []string{"", TaskPasskey, TaskPhonebook}; !slices.Contains(tasks, g.Task) {
		return fmt.Errorf("data.generate.task: must be one of %s, is %q", strings.Join(tasks[1:], ", "), g.Task)
	}
	if losses := []string{LossAnswer, LossAll}; g.Task != "" && !slices.Contains(losses, g.Loss) {
		return fmt.Errorf("data.generate.loss: must be one of %s, is %q", strings.Join(losses, ", "), g.Loss)
	}
	return nil
}

// generatedRows is the number of rows in an epoch of generated data: no run sees them all.
const generatedRows = 1 << 40

// Question is a prompt with one correct answer.
type Question struct {
	// Prompt starts with the end-of-text token, as texts do.
	Prompt []int32
	Answer string
	// answer is the tokens of " " followed by the answer.
	answer []int32
}

// task makes rows.
type task interface {
	// row returns a question whose prompt and answer, with an end of text, have at most n tokens.
	row(r *rand.Rand, n int) (Question, error)
}

// generator generates the rows of a dataset: each is a pure function of the seed, the split and the
// sample's number.
type generator struct {
	task  task
	tok   Tokenizer
	split Split
	seed  uint64
	all   bool // all tokens count
}

// newGenerator returns nil without a task.
func newGenerator(c Config, tok Tokenizer, split Split) (*generator, error) {
	g := &generator{tok: tok, split: split, seed: c.Seed, all: c.Generate.Loss == LossAll}
	var err error
	switch c.Generate.Task {
	case TaskPasskey:
		g.task, err = NewPasskeys(tok)
	case TaskPhonebook:
		g.task, err = NewPhonebooks(tok)
	default:
		return nil, nil
	}
	return g, err
}

// Numbers of the random streams of generated rows; they keep the splits apart.
const (
	streamGenerated  = 3
	streamValidation = 4
)

// fill generates n rows of T+1 tokens, starting at sample number first. A token that is not a
// target is stored as its complement, ^id.
func (g *generator) fill(first int64, n int, dst []int32) error {
	width := len(dst) / n
	stream := uint64(streamGenerated)
	if g.split == Validation {
		stream = streamValidation
	}
	for i := range n {
		row := dst[i*width : (i+1)*width]
		q, err := g.task.row(rand.New(rand.NewPCG(mix64(g.seed^mix64(stream)), uint64(first)+uint64(i))), width)
		if err != nil {
			return fmt.Errorf("data.seq_len: %w", err)
		}
		m := copy(row, q.Prompt)
		if !g.all {
			for j := range m {
				row[j] = ^row[j]
			}
		}
		m += copy(row[m:], append(q.answer, g.tok.EOS()))
		for ; m < width; m++ {
			row[m] = ^g.tok.EOS()
		}
	}
	return nil
}

// fingerprint changes whenever any row would be different.
func (g *generator) fingerprint() string {
	return checksum(fmt.Appendf(nil, "generated 1 %T %v %d %s", g.task, g.all, g.seed, g.tok.Fingerprint()))
}

// SplitRow splits a row of T+1 tokens into T inputs and T targets. A target that does not count is
// -1.
func SplitRow(row, tokens, targets []int32) {
	for i := range tokens {
		tokens[i], targets[i] = row[i], row[i+1]
		if row[i] < 0 {
			tokens[i] = ^row[i]
		}
		if row[i+1] < 0 {
			targets[i] = -1
		}
	}
}

// inside returns the tokens of text when it follows before, since tokens may depend on the text
// before them.
func inside(tok Tokenizer, before, text string) ([]int32, error) {
	head, err := tok.Encode(nil, []byte(before))
	if err != nil {
		return nil, err
	}
	all, err := tok.Encode(nil, []byte(before+text))
	if err != nil {
		return nil, err
	}
	if len(all) <= len(head) || !slices.Equal(all[:len(head)], head) {
		return nil, fmt.Errorf("data.tokenizer: %s joins %q and %q in one token: generated rows need another tokenizer", tok.Name(), before, text)
	}
	return all[len(head):], nil
}
