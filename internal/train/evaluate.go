package train

import (
	"fmt"

	"github.com/sambatrain/sambatrain/data"
)

// validation is a fixed part of the validation split.
type validation struct {
	set             *data.Dataset
	rows            int
	buf             []int32 // (MicroBatch, T+1)
	tokens, targets []int32
}

// score is a mean loss over some tokens.
type score struct {
	Loss        float64 // nats a token
	BitsPerByte float64
	Tokens      int64
}

func newValidation(e *Engine, set *data.Dataset, rows int) (*validation, error) {
	if int64(rows) > set.Blocks() {
		rows = int(set.Blocks())
	}
	if rows < 1 {
		return nil, fmt.Errorf("data.validation_fraction: the validation split has less than one row of %d tokens; raise it, or lower data.seq_len", e.SeqLen)
	}
	n := e.MicroBatch * e.SeqLen
	return &validation{set: set, rows: rows, buf: make([]int32, e.MicroBatch*(e.SeqLen+1)),
		tokens: make([]int32, n), targets: make([]int32, n)}, nil
}

// run measures the loss on rows that are spread evenly over the split, the same
// ones each time. Rows that fill up the last micro-batch don't count: their targets
// are -1.
func (v *validation) run(e *Engine) (score, error) {
	var nats float64
	var s score
	var bytes int64
	for row := 0; row < v.rows; row += e.MicroBatch {
		n := min(e.MicroBatch, v.rows-row)
		for i := range n {
			block := int64(row+i) * v.set.Blocks() / int64(v.rows)
			if err := v.set.Rows(block, 1, v.buf[i*(e.SeqLen+1):(i+1)*(e.SeqLen+1)]); err != nil {
				return score{}, err
			}
		}
		splitRows(v.buf, v.tokens, v.targets, e.SeqLen)
		for i := n * e.SeqLen; i < len(v.targets); i++ {
			v.tokens[i], v.targets[i] = 0, -1
		}
		nll, err := e.Evaluate(v.tokens, v.targets)
		if err != nil {
			return score{}, err
		}
		for _, x := range nll[:n*e.SeqLen] {
			nats += float64(x)
		}
		s.Tokens += int64(n * e.SeqLen)
		bytes += data.TextBytes(v.set.Tokenizer(), v.targets[:n*e.SeqLen])
	}
	s.Loss = nats / float64(s.Tokens)
	s.BitsPerByte = data.BitsPerByte(nats, bytes)
	return s, nil
}

// splitRows takes rows of T+1 tokens apart into inputs and targets.
func splitRows(rows, tokens, targets []int32, t int) {
	for i := range len(tokens) / t {
		row := rows[i*(t+1) : (i+1)*(t+1)]
		copy(tokens[i*t:], row[:t])
		copy(targets[i*t:(i+1)*t], row[1:])
	}
}
