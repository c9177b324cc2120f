package evaluate

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// model returns an untrained model of a few thousand parameters, and the engine with its parallel
// forward pass.
func model(t testing.TB, rows, seq int, mixers ...string) (*train.Model, *train.Engine) {
	t.Helper()
	r := recipes.Defaults()
	m := &r.Model
	m.VocabSize, m.DModel = 272, 16
	for _, name := range mixers {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	m.Attention.Heads, m.Attention.Window, m.MLP.DFF = 2, 16, 32
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	e, err := train.NewEngine(dev, m, optim.DefaultAdamW(), train.EngineConfig{MicroBatch: rows, SeqLen: seq})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Init(1); err != nil {
		t.Fatal(err)
	}
	tok, err := data.NewTokenizer("bytes")
	if err != nil {
		t.Fatal(err)
	}
	return &train.Model{Recipe: &r, Checkpoint: &checkpoint.Checkpoint{}, Model: m, Tokenizer: tok, Device: dev, Memory: e.Memory()}, e
}

// file writes n random letters and returns the path and the tokens.
func file(t testing.TB, tok data.Tokenizer, n int) (string, []int32) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	text := make([]byte, n)
	for i := range text {
		text[i] = byte('a' + rng.IntN(26))
	}
	path := filepath.Join(t.TempDir(), "text.txt")
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
	ids, err := tok.Encode([]int32{tok.EOS()}, text)
	if err != nil {
		t.Fatal(err)
	}
	return path, ids
}

// TestPPL: the scores for all lengths and positions are the means of what the parallel forward pass
// gives for each text, whatever the rows and the chunk size.
func TestPPL(t *testing.T) {
	const texts, longest = 3, 96
	lengths := []int{32, 80, longest}
	m, e := model(t, texts, longest, "mamba", "mlp", "swa", "mlp")
	path, ids := file(t, m.Tokenizer, texts*(longest+1)+40)
	var tokens, targets []int32
	for i := range texts {
		text := ids[i*(longest+1):][:longest+1]
		tokens, targets = append(tokens, text[:longest]...), append(targets, text[1:]...)
	}
	whole, err := e.NewEvaluator(texts, longest)
	if err != nil {
		t.Fatal(err)
	}
	nll, err := whole.Run(tokens, targets)
	if err != nil {
		t.Fatal(err)
	}
	mean := func(from, to int) float64 {
		sum := 0.0
		for i := range texts {
			for _, x := range nll[i*longest+from : i*longest+to] {
				sum += float64(x)
			}
		}
		return sum / float64(texts*(to-from))
	}
	check := func(what string, s Score, from, to int) {
		t.Helper()
		want := mean(from, to)
		if s.Tokens != int64(texts*(to-from)) || !(math.Abs(s.Loss-want) <= 1e-5*want) || !(math.Abs(s.Perplexity-math.Exp(want)) <= 1e-4*math.Exp(want)) || !(math.Abs(s.BitsPerByte-want/math.Ln2) <= 1e-4) {
			t.Errorf("%s: %+v, want a loss of %v", what, s, want)
		}
	}
	for _, o := range []PPLOptions{{Rows: 1}, {Rows: 2, Chunk: 7}, {Rows: 8, Chunk: 33}} {
		c, err := Files(t.Context(), m.Tokenizer, []string{path}, data.TextConfig{JSONLField: "text"}, 100, longest+1)
		if err != nil {
			t.Fatal(err)
		}
		if c.Texts() != texts {
			t.Fatalf("%d texts, want %d", c.Texts(), texts)
		}
		o.Lengths = lengths
		r, err := MeasurePPL(t.Context(), m, c, o)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Lengths) != 3 || r.Texts != texts {
			t.Fatalf("%+v", r)
		}
		for i, l := range r.Lengths {
			check("length", l.Score, 0, lengths[i])
		}
		at := 0
		for _, p := range r.Positions {
			if p.From != at {
				t.Errorf("an interval from %d after one to %d", p.From, at)
			}
			check("position", p.Score, p.From, p.To)
			at = p.To
		}
		if at != longest {
			t.Errorf("the intervals end at %d", at)
		}
	}
}

// TestMemoryIsFlat: a text eight times as long takes no more memory.
func TestMemoryIsFlat(t *testing.T) {
	m, _ := model(t, 1, 8, "mamba", "swa")
	used := func(length int) (heap, state int64) {
		path, _ := file(t, m.Tokenizer, length)
		c, err := Files(t.Context(), m.Tokenizer, []string{path}, data.TextConfig{JSONLField: "text"}, 100, length+1)
		if err != nil {
			t.Fatal(err)
		}
		var peak int64
		r, err := MeasurePPL(t.Context(), m, c, PPLOptions{Lengths: []int{length}, Progress: func(done, total int64) {
			if done%(1<<14) == 0 {
				var s runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&s)
				peak = max(peak, int64(s.HeapAlloc)-4*int64(length)) // without the tokens
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		return peak, r.StateBytes
	}
	shortHeap, shortState := used(1 << 15)
	longHeap, longState := used(1 << 18)
	if longState != shortState || longHeap > shortHeap+256<<10 {
		t.Errorf("32k tokens take %d bytes and %d of state, 256k tokens %d and %d", shortHeap, shortState, longHeap, longState)
	}
}

// TestStopped: the results of complete texts are kept.
func TestStopped(t *testing.T) {
	m, _ := model(t, 1, 8, "mamba")
	path, _ := file(t, m.Tokenizer, 1000)
	c, err := Files(t.Context(), m.Tokenizer, []string{path}, data.TextConfig{JSONLField: "text"}, 100, 101)
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []int64{50, 350} {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := MeasurePPL(ctx, m, c, PPLOptions{Lengths: []int{100}, Chunk: 50, Progress: func(done, _ int64) {
			if done >= after {
				cancel()
			}
		}})
		cancel()
		var stopped *Stopped
		if after == 50 {
			if !errors.Is(err, context.Canceled) || r != nil {
				t.Errorf("in the first text: %v, %v", r, err)
			}
		} else if !errors.As(err, &stopped) || stopped.Done != 3 || stopped.Of != c.Texts() || r.Texts != 3 || r.Lengths[0].Tokens != 300 {
			t.Errorf("in the fourth text: %+v, %v", r, err)
		}
	}
}

// TestFilesOfDocuments: the documents of a compressed JSONL file are read as in training, not its
// bytes.
func TestFilesOfDocuments(t *testing.T) {
	tok, err := data.NewTokenizer("bytes")
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	fmt.Fprintln(zip, `{"body": "abc"}`+"\n\n"+`{"body": "def"}`)
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.jsonl.gz")
	if err := os.WriteFile(path, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Files(t.Context(), tok, []string{path}, data.TextConfig{JSONLField: "body"}, 100, 6)
	if err != nil {
		t.Fatal(err)
	}
	if c.Texts() != 1 {
		t.Fatalf("%d texts, want one", c.Texts())
	}
	read, err := c.texts[0]()
	got := make([]int32, 6)
	if err = errors.Join(err, read(got)); err != nil {
		t.Fatal(err)
	}
	if want := []int32{tok.EOS(), 'a', 'b', 'c', tok.EOS(), 'd'}; !slices.Equal(got, want) {
		t.Errorf("tokens are %v, want %v", got, want)
	}
	_, err = Files(t.Context(), tok, []string{path}, data.TextConfig{JSONLField: "text"}, 100, 6)
	if want := `x.jsonl.gz:1: no field "text" among ["body"]: set data.text.jsonl_field`; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("another field: %v", err)
	}
}

// TestFilesEnough: files are read until there are enough texts, and no further.
func TestFilesEnough(t *testing.T) {
	tok, err := data.NewTokenizer("bytes")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.jsonl")
	if err := os.WriteFile(path, []byte(`{"text": "abcdefg"}`+"\n"+`{"text": "hijklmn"}`+"\nno JSON\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	how := data.TextConfig{JSONLField: "text"}
	c, err := Files(t.Context(), tok, []string{path, "absent"}, how, 3, 5)
	if err != nil || c.Texts() != 3 || !slices.Equal(c.Unread, []string{"absent"}) {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := Files(t.Context(), tok, []string{path, "absent"}, how, 4, 5); err == nil || !strings.Contains(err.Error(), "x.jsonl:3: ") {
		t.Errorf("one text more: %v", err)
	}
}

func TestFilesRefuses(t *testing.T) {
	m, _ := model(t, 1, 8, "mamba")
	path, _ := file(t, m.Tokenizer, 50)
	if _, err := Files(t.Context(), m.Tokenizer, []string{path}, data.TextConfig{JSONLField: "text"}, 100, 101); err == nil || !strings.Contains(err.Error(), "the longest file has 51 tokens, the longest length needs 101") {
		t.Errorf("too short a file: %v", err)
	}
	if _, err := Files(t.Context(), m.Tokenizer, []string{path + "x"}, data.TextConfig{JSONLField: "text"}, 100, 101); err == nil || !strings.HasPrefix(err.Error(), "data.text: open "+path+"x: ") {
		t.Errorf("no file: %v", err)
	}
}

// TestRetrieve: every question is asked once, whatever the number of rows, and the answer found in
// the generated text is compared with that question's answer.
func TestRetrieve(t *testing.T) {
	m, _ := model(t, 1, 8, "mamba", "swa")
	keys, err := data.NewPasskeys(m.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	for _, rows := range []int{1, 2, 9} {
		var answers []string
		cells := []Cell{{Length: 300, Depth: 0}, {Length: 400, Depth: 0.5}}
		next := task{
			tokens: 3,
			key:    func(c Cell) uint64 { return uint64(c.Length) },
			ask: func(r *rand.Rand, c Cell) (data.Question, error) {
				q, err := keys.Question(r, c.Length, c.Depth)
				if len(answers)%2 == 1 {
					q.Answer = "none"
				}
				answers = append(answers, q.Answer)
				return q, err
			},
			read: func(text string) string { return "none" },
		}
		r, err := retrieve(t.Context(), m, cells, RetrievalOptions{Samples: 4, Seed: 1, Rows: rows}, next)
		if err != nil {
			t.Fatal(err)
		}
		if len(answers) != 8 || answers[0] == answers[2] {
			t.Errorf("answers %v", answers)
		}
		for i, c := range r.Cells {
			if c.Asked != 4 || c.Right != 2 || c.Share() != 0.5 || c.Length != cells[i].Length {
				t.Errorf("%+v", c)
			}
		}
	}
	r, err := Passkey(t.Context(), m, []int{300, 350}, []float64{0, 1}, RetrievalOptions{Samples: 2, Rows: 2})
	if err != nil || len(r.Cells) != 4 || Total(r.Cells).Share() != 0 {
		t.Errorf("an untrained model: %+v, %v", r, err)
	}
	if r, err = Phonebook(t.Context(), m, []int{3, 5}, RetrievalOptions{Samples: 2}); err != nil || len(r.Cells) != 2 || r.Cells[1].Length < 100 {
		t.Errorf("an untrained model: %+v, %v", r, err)
	}
}
