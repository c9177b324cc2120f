package train

import (
	"math"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/data"
)

// TestValidation: the score of some rows doesn't depend on how many go through the model at once,
// although the last micro-batch is then padded.
func TestValidation(t *testing.T) {
	const seq = 16
	c := shards(t)
	dev := device(t, 1)
	m := samba()
	m.VocabSize = 272
	var want score
	for _, micro := range []int{1, 2, 3, 8} {
		e := engine(t, dev, m, adamw(), micro, seq, false)
		set, err := data.Open(t.Context(), c, data.Validation)
		if err != nil {
			t.Fatal(err)
		}
		v, err := newValidation(e, set, int(set.Blocks())-1, []int{1})
		if err != nil {
			t.Fatal(err)
		}
		scores, err := v.run(unwatched)
		if err != nil {
			t.Fatal(err)
		}
		got := scores[0]
		if again, err := v.run(unwatched); err != nil || again[0] != got {
			t.Errorf("micro-batches of %d: %+v, then %+v (%v)", micro, got, again, err)
		}
		if micro == 1 {
			want = got
			if want.Tokens != int64(v.rows)*seq || !(want.Loss > 0) {
				t.Fatalf("%+v, want %d tokens", want, v.rows*seq)
			}
			// Some targets are ends of text, which have no bytes.
			if bits := want.Loss / math.Ln2; !(want.BitsPerByte > bits) {
				t.Errorf("%v bits per byte of %v bits per token", want.BitsPerByte, bits)
			}
			continue
		}
		if got.Tokens != want.Tokens || !(math.Abs(got.Loss-want.Loss) <= 1e-6*want.Loss) || !(math.Abs(got.BitsPerByte-want.BitsPerByte) <= 1e-6*want.BitsPerByte) {
			t.Errorf("micro-batches of %d: %+v, of 1: %+v", micro, got, want)
		}
	}
}

// TestValidationLengths: one pass over long rows gives the same as passes over only their first
// tokens.
func TestValidationLengths(t *testing.T) {
	const seq = 16
	lengths := []int{1, 2, 3}
	m := samba()
	m.VocabSize = 272
	e := engine(t, device(t, 2), m, adamw(), 4, seq, false)
	c := shards(t)
	c.SeqLen = 3 * seq
	set, err := data.Open(t.Context(), c, data.Validation)
	if err != nil {
		t.Fatal(err)
	}
	v, err := newValidation(e, set, 5, lengths)
	if err != nil {
		t.Fatal(err)
	}
	scores, err := v.run(unwatched)
	if err != nil {
		t.Fatal(err)
	}
	for k, times := range lengths {
		n := times * seq
		alone, err := e.NewEvaluator(1, n)
		if err != nil {
			t.Fatal(err)
		}
		var want sum
		for row := range int64(v.rows) {
			block := make([]int32, 3*seq+1)
			if err := set.Rows(row*set.Blocks()/int64(v.rows), 1, block); err != nil {
				t.Fatal(err)
			}
			nll, err := alone.Run(block[:n], block[1:n+1])
			if err != nil {
				t.Fatal(err)
			}
			want.add(nll, block[1:n+1], 0)
		}
		loss := want.nats / float64(want.tokens)
		if got := scores[k]; got.Tokens != int64(5*n) || !(math.Abs(got.Loss-loss) <= 1e-6*loss) || !(got.BitsPerByte > 0) {
			t.Errorf("at %d times: %+v, want %v", times, got, loss)
		}
	}
}

// TestValidationBounds: asking for more rows than there are means all of them.
func TestValidationBounds(t *testing.T) {
	m := samba()
	m.VocabSize = 272
	e := engine(t, device(t, 1), m, adamw(), 2, 16, false)
	set, err := data.Open(t.Context(), shards(t), data.Validation)
	if err != nil {
		t.Fatal(err)
	}
	v, err := newValidation(e, set, math.MaxInt, []int{1})
	if err != nil || int64(v.rows) != set.Blocks() {
		t.Errorf("%d rows of %d (%v)", v.rows, set.Blocks(), err)
	}
}

func TestSplitRows(t *testing.T) {
	tokens, targets := make([]int32, 6), make([]int32, 6)
	splitRows([]int32{1, 2, 3, 4, 5, 6, 7, 8}, tokens, targets, 3)
	for i, want := range []int32{1, 2, 3, 5, 6, 7} {
		if tokens[i] != want || targets[i] != want+1 {
			t.Fatalf("tokens %v, targets %v", tokens, targets)
		}
	}
}

func unwatched(pass func() error) error { return pass() }

// TestCheckFinite: a loss that isn't finite, and one of no text, are not reported as results.
func TestCheckFinite(t *testing.T) {
	r := recipe(t)
	r.Eval.Lengths = []int{1, 2}
	s := &session{recipe: r, step: 3, dir: "runs/x"}
	good := score{Loss: 2, BitsPerByte: 3, Tokens: 10}
	if err := s.checkFinite([]score{good, good, {Loss: 2, BitsPerByte: math.Inf(1), Tokens: 1}}); err == nil || !strings.Contains(err.Error(), "eval.rows: the 1 tokens") {
		t.Errorf("a source without text: error is %v", err)
	}
	for _, c := range []struct {
		bad  score
		want string
	}{
		{good, ""},
		{score{Loss: math.NaN(), BitsPerByte: math.NaN(), Tokens: 10}, "step 3: training has diverged, the validation loss on rows of 32 tokens is NaN; start a new run with a lower optim.lr"},
		{score{Loss: math.Inf(1), BitsPerByte: math.Inf(1), Tokens: 10}, "is +Inf; start a new run"},
		{score{Loss: 2, BitsPerByte: math.Inf(1), Tokens: 1}, "eval.rows: the 1 tokens that were measured stand for no text, only for its ends; measure more with `sambatrain resume runs/x --set eval.rows=...`"},
	} {
		err := s.checkFinite([]score{good, c.bad})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: error is %v, want %q", c.bad, err, c.want)
		}
	}
}
