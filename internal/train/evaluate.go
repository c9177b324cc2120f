package train

import (
	"fmt"
	"slices"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/graph"
)

// validation is a fixed part of the validation split, in rows of the longest length.
type validation struct {
	engine          *Engine
	set             *data.Dataset
	eval            *Evaluator
	rows            int
	lengths         []int    // multiples of unit, increasing from 1
	unit            int      // the row length T in training
	sources         []string // of a mixture, those that some of the rows are from, sorted
	buf             []int32  // (eval.Rows, eval.SeqLen+1)
	tokens, targets []int32
}

// score is a mean loss over some tokens.
type score struct {
	Loss        float64 // nats per token
	BitsPerByte float64
	Tokens      int64
}

// newValidation uses rows whose lengths are multiples of the engine's row length; set has blocks of
// the longest.
func newValidation(e *Engine, set *data.Dataset, rows int, lengths []int) (*validation, error) {
	rows = int(min(int64(rows), set.Blocks()))
	if rows < 1 {
		return nil, fmt.Errorf("data.validation_fraction: the validation split has less than one row of %d tokens: raise it, name more files in data.text.validation, or lower data.seq_len", set.SeqLen())
	}
	// As many tokens at a time as in training.
	eval, err := e.NewEvaluator(max(1, e.MicroBatch/lengths[len(lengths)-1]), set.SeqLen())
	if err != nil {
		return nil, err
	}
	n := eval.Rows * eval.SeqLen
	v := &validation{engine: e, set: set, eval: eval, rows: rows, lengths: lengths, unit: e.SeqLen,
		buf: make([]int32, n+eval.Rows), tokens: make([]int32, n), targets: make([]int32, n)}
	for row := range rows {
		if name := set.Source(v.block(row)); name != "" && !slices.Contains(v.sources, name) {
			v.sources = append(v.sources, name)
		}
	}
	slices.Sort(v.sources)
	return v, nil
}

// block returns the block of the split that a row is.
func (v *validation) block(row int) int64 { return int64(row) * v.set.Blocks() / int64(v.rows) }

// run measures the loss on rows spread evenly over the split, always the same ones: one score for
// each length, on the first tokens of each row, and then one for each source, at the first length.
// No token sees a later one, so one pass over the longest rows gives all of them. Each pass is
// executed by watch.
func (v *validation) run(watch func(pass func() error) error) ([]score, error) {
	sums := make([]sum, len(v.lengths)+len(v.sources))
	// The passes are distributed over the processes in turn.
	for first := 0; first < v.rows; first += v.eval.Rows * v.engine.Processes() {
		row := first + v.eval.Rows*v.engine.rank()
		n := max(0, min(v.eval.Rows, v.rows-row))
		if n == 0 && !v.engine.sharded(graph.Params) {
			continue // where processes need each other's parameters, all must do the pass
		}
		if err := watch(func() error { return v.pass(row, n, sums) }); err != nil {
			return nil, err
		}
	}
	scores := make([]score, len(sums))
	for k, s := range sums {
		if err := watch(func() error { return s.overProcesses(v.engine) }); err != nil {
			return nil, err
		}
		scores[k] = score{Loss: s.nats / float64(s.tokens), BitsPerByte: data.BitsPerByte(s.nats, s.bytes), Tokens: s.tokens}
	}
	return scores, nil
}

// pass adds n rows, starting at `row`, to the sums. Rows that only fill up the pass don't count:
// their targets are -1.
func (v *validation) pass(row, n int, sums []sum) error {
	long := v.eval.SeqLen
	for i := range n {
		if err := v.set.Rows(v.block(row+i), 1, v.buf[i*(long+1):(i+1)*(long+1)]); err != nil {
			return &rowsLost{err}
		}
	}
	splitRows(v.buf, v.tokens, v.targets, long)
	for i := n * long; i < len(v.targets); i++ {
		v.tokens[i], v.targets[i] = 0, -1
	}
	nll, err := v.eval.Run(v.tokens, v.targets)
	if err != nil {
		return err
	}
	for i := range n {
		add := func(s *sum, times int) {
			from, to := i*long, i*long+times*v.unit
			s.add(nll[from:to], v.targets[from:to], data.TextBytes(v.set.Tokenizer(), v.targets[from:to]))
		}
		for k, times := range v.lengths {
			add(&sums[k], times)
		}
		if k := slices.Index(v.sources, v.set.Source(v.block(row+i))); k >= 0 {
			add(&sums[len(v.lengths)+k], v.lengths[0])
		}
	}
	return nil
}

// rowsLost is the error for rows that can't be read.
type rowsLost struct{ error }

func (e *rowsLost) Unwrap() error { return e.error }

// sum holds the sums from which a score is computed.
type sum struct {
	nats          float64
	tokens, bytes int64
}

// overProcesses adds up the sums of all processes.
func (s *sum) overProcesses(e *Engine) error {
	x := [exchanged]float64{s.nats, float64(s.tokens), float64(s.bytes)}
	err := e.sums(&x)
	s.nats, s.tokens, s.bytes = x[0], int64(x[1]), int64(x[2])
	return err
}

func (s *sum) add(nll []float32, targets []int32, bytes int64) {
	for _, x := range nll {
		s.nats += float64(x)
	}
	s.tokens += int64(counted(targets))
	s.bytes += bytes
}

// splitRows splits rows of T+1 tokens into inputs and targets.
func splitRows(rows, tokens, targets []int32, t int) {
	for i := range len(tokens) / t {
		row := rows[i*(t+1) : (i+1)*(t+1)]
		data.SplitRow(row, tokens[i*t:(i+1)*t], targets[i*t:(i+1)*t])
	}
}

// counted returns how many targets count.
func counted(targets []int32) int {
	n := 0
	for _, id := range targets {
		if id >= 0 {
			n++
		}
	}
	return n
}
