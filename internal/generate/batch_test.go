package generate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/layers"
)

func sampler(t testing.TB, c generate.SamplerConfig) *generate.Sampler {
	t.Helper()
	s, err := generate.NewSampler(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// never is not a token: a sequence with this EOS does not end by itself.
const never = int32(vocab)

// untied returns a model whose sequences differ; with a tied head, random weights repeat the last
// token forever.
func untied(t testing.TB, rows, seq int) *train.Engine {
	m := model("mamba", "mlp", "swa", "mlp")
	m.TieEmbeddings = false
	return parallel(t, m, rows, seq)
}

// asynchronous is a device that reports that it works asynchronously.
type asynchronous struct{ graph.Device }

func (asynchronous) Asynchronous() bool { return true }

// continued returns the continuations of prompts in batches with this many rows.
func continued(t *testing.T, e *train.Engine, rows int, list []generate.Request) [][]int32 {
	t.Helper()
	return continuedBy(t, e.Device(), e.Memory(), e.Model(), generate.Config{Rows: rows, Chunk: 4}, list)
}

func continuedBy(t *testing.T, dev graph.Device, mem graph.Memory, m *layers.Model, c generate.Config, list []generate.Request) [][]int32 {
	t.Helper()
	b, err := generate.NewBatch(dev, mem, m, c)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	out := make([][]int32, len(list))
	for i := range list {
		emit := list[i].Emit
		list[i].Emit = func(token int32, scores []float32) bool {
			out[i] = append(out[i], token)
			return emit == nil || emit(token, scores)
		}
	}
	if err := b.Run(t.Context(), slices.Clone(list)); err != nil {
		t.Fatal(err)
	}
	if b.Active() != 0 {
		t.Errorf("%d texts are left", b.Active())
	}
	return out
}

// TestBatch: sequences that are continued together, more of them than there are rows, have the same
// tokens as each alone: the likeliest ones given everything before.
func TestBatch(t *testing.T) {
	e := untied(t, 1, 40)
	greedy := func(prompt []int32, n int) generate.Request {
		return generate.Request{Prompt: prompt, Tokens: n, EOS: never, Sampler: sampler(t, generate.SamplerConfig{TopP: 1, Vocab: vocab})}
	}
	var prompts [][]int32
	for i, n := range []int{5, 1, 9, 2, 7} {
		prompts = append(prompts, text(uint64(20+i), n))
	}
	requests := func() (list []generate.Request) {
		for i, p := range prompts {
			list = append(list, greedy(p, 12-i))
		}
		return list
	}
	want := continued(t, e, 1, requests())
	for i, out := range want {
		if len(out) != 12-i || slices.Max(out) == slices.Min(out) {
			t.Fatalf("the text %v can't show a mistake, want %d tokens that differ", out, 12-i)
		}
		all := slices.Concat(prompts[i], out)
		logits, err := e.Logits(append(all, make([]int32, 40-len(all))...))
		if err != nil {
			t.Fatal(err)
		}
		for j, token := range out {
			if best := generate.Best(logits[(len(prompts[i])-1+j)*vocab:][:vocab]); best != token {
				t.Errorf("text %d, token %d is %d, the likeliest is %d", i, j, token, best)
			}
		}
	}
	for _, rows := range []int{2, 3, 8} {
		for _, dev := range []graph.Device{e.Device(), asynchronous{e.Device()}} {
			if got := continuedBy(t, dev, e.Memory(), e.Model(), generate.Config{Rows: rows, Chunk: 4}, requests()); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%d rows, %T:\n%v, want\n%v", rows, dev, got, want)
			}
		}
	}
}

// TestEnds: by EOS, by the receiver, by the number of tokens.
func TestEnds(t *testing.T) {
	e := untied(t, 1, 8)
	prompt := text(9, 5)
	one := func(n int, eos int32, stopAt int) []int32 {
		count := 0
		return continued(t, e, 1, []generate.Request{{Prompt: prompt, Tokens: n, EOS: eos,
			Sampler: sampler(t, generate.SamplerConfig{TopP: 1, Vocab: vocab}),
			Emit:    func(int32, []float32) bool { count++; return count != stopAt }}})[0]
	}
	want := one(12, never, 0)
	for _, c := range []struct {
		name string
		got  []int32
		want []int32
	}{
		{"3 tokens", one(3, never, 0), want[:3]},
		{"ended by the receiver after 4", one(12, never, 4), want[:4]},
		{"ended by the receiver after 1", one(12, never, 1), want[:1]},
		{"the end of text first", one(12, want[0], 0), nil},
		{"no token wanted", one(0, never, 0), nil},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.got, c.want)
		}
	}
}

// TestEndOfText: the logits of an EOS that was drawn are passed on, and only those.
func TestEndOfText(t *testing.T) {
	e := untied(t, 1, 8)
	q := generate.Request{Prompt: text(9, 5), Tokens: 4, EOS: never, Sampler: sampler(t, generate.SamplerConfig{TopP: 1, Vocab: vocab}), Scores: true}
	all := continued(t, e, 1, []generate.Request{q})[0]
	for at, eos := range all {
		if slices.Index(all, eos) < at {
			continue // it would end there
		}
		ends := 0
		q.EOS = eos
		q.EndOfText = func(scores []float32) {
			if ends++; generate.Best(scores) != eos {
				t.Errorf("the logits of the end are those of %d, not of %d", generate.Best(scores), eos)
			}
		}
		if got := continued(t, e, 1, []generate.Request{q})[0]; !slices.Equal(got, all[:at]) || ends != 1 {
			t.Errorf("%d ends of text after %v, want one after %v", ends, got, all[:at])
		}
	}
}

// TestRead: the prompt's logits are passed on, progress is reported, and cancelling ends a prompt.
func TestRead(t *testing.T) {
	e := untied(t, 1, 10)
	prompt := text(9, 10)
	want, err := e.Logits(prompt)
	if err != nil {
		t.Fatal(err)
	}
	b, err := generate.NewBatch(e.Device(), e.Memory(), e.Model(), generate.Config{Rows: 2, Chunk: 4, Positions: 12})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var got []float32
	q := generate.Request{Prompt: prompt, EOS: never, Read: func(at, n int, scores []float32) error {
		if at*vocab != len(got) || len(scores) != n*vocab {
			t.Errorf("%d scores of %d tokens from %d, after %d", len(scores), n, at, len(got))
		}
		got = append(got, scores...)
		return nil
	}}
	var done []int
	q.Progress = func(n int) { done = append(done, n) }
	if err := b.Add(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(done, []int{0, 4, 8, 10}) {
		t.Errorf("%v tokens are read", done)
	}
	if len(got) != len(want) || !(relative(got, want) <= 1e-5) {
		t.Errorf("%d scores, want %d that are equal", len(got), len(want))
	}
	ctx, cancel := context.WithCancel(t.Context())
	q.Read = func(int, int, []float32) error { cancel(); return nil }
	if err := b.Add(ctx, q); !errors.Is(err, context.Canceled) || b.Active() != 0 {
		t.Errorf("cancelled: %v, %d active", err, b.Active())
	}
	if err := b.Add(t.Context(), generate.Request{}); err == nil || !strings.Contains(err.Error(), "prompt is empty") {
		t.Errorf("no prompt: %v", err)
	}
	if err := b.Add(t.Context(), generate.Request{Prompt: text(1, 13)}); err == nil || !strings.Contains(err.Error(), "12 tokens") {
		t.Errorf("too long a prompt: %v", err)
	}
}

// TestReadAndContinued: a sequence whose prompt's logits are passed on continues like one without.
func TestReadAndContinued(t *testing.T) {
	e := untied(t, 1, 8)
	q := func() generate.Request {
		return generate.Request{Prompt: text(9, 8), Tokens: 6, EOS: never, Sampler: sampler(t, generate.SamplerConfig{TopP: 1, Vocab: vocab})}
	}
	read := q()
	read.Read = func(int, int, []float32) error { return nil }
	got, want := continued(t, e, 1, []generate.Request{read}), continued(t, e, 1, []generate.Request{q()})
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestVocabularies: sequences that are continued together draw each from its own part of the
// vocabulary.
func TestVocabularies(t *testing.T) {
	e := untied(t, 1, 8)
	requests := func() (list []generate.Request) {
		for i, n := range []int{vocab, 3, vocab, 9} {
			list = append(list, generate.Request{Prompt: text(uint64(i), 4), Tokens: 20, EOS: never,
				Sampler: sampler(t, generate.SamplerConfig{Temperature: 1, TopP: 1, Vocab: n, Seed: uint64(i)})})
		}
		return list
	}
	want := continued(t, e, 1, requests())
	if slices.Max(want[1]) > 2 || slices.Max(want[3]) > 8 || slices.Max(want[0]) < 9 {
		t.Fatalf("tokens %v are not of vocabularies of %d, 3 and 9", want, vocab)
	}
	for _, dev := range []graph.Device{e.Device(), asynchronous{e.Device()}} {
		if got := continuedBy(t, dev, e.Memory(), e.Model(), generate.Config{Rows: 4, Chunk: 4}, requests()); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%T: %v, alone %v", dev, got, want)
		}
	}
}

// TestSameSeedSameText uses separate batches; another seed gives another sequence.
func TestSameSeedSameText(t *testing.T) {
	e := untied(t, 1, 8)
	sampled := func(seed uint64) string {
		return fmt.Sprint(continued(t, e, 1, []generate.Request{{Prompt: []int32{1}, Tokens: 50, EOS: never,
			Sampler: sampler(t, generate.SamplerConfig{Temperature: 1, TopP: 0.95, Vocab: vocab, Seed: seed})}}))
	}
	if a, b := sampled(1), sampled(1); a != b {
		t.Errorf("one seed, two texts:\n%s\n%s", a, b)
	}
	if a, b := sampled(1), sampled(2); a == b {
		t.Errorf("two seeds, one text:\n%s", a)
	}
}

// several returns requests of all kinds: with the most likely tokens and with sampled ones, and with
// various ends. With scores the host draws.
func several(t *testing.T, n int, sampled, scores bool) (list []generate.Request) {
	t.Helper()
	kinds := []generate.SamplerConfig{{TopP: 1}, {Temperature: 0.8, TopP: 1}, {Temperature: 1.5, TopP: 0.7}, {TopP: 1}, {Temperature: 1, TopK: 5, TopP: 0.9}}
	for i := range n {
		c := generate.SamplerConfig{TopP: 1}
		if sampled {
			c = kinds[i%len(kinds)]
		}
		c.Vocab, c.Seed = vocab-1, uint64(i)
		list = append(list, generate.Request{Prompt: text(uint64(i), 1+7*i%19), Tokens: 1 + 11*i%17, EOS: 3, Sampler: sampler(t, c), Scores: scores})
	}
	return list
}

// TestDrawnOnDevice: sequences are the same whether the host or the device draws their tokens, also
// if the device continues before the host has seen them.
func TestDrawnOnDevice(t *testing.T) {
	e := untied(t, 1, 8)
	for _, rows := range []int{1, 3, 8} {
		for _, sampled := range []bool{false, true} {
			want := continued(t, e, rows, several(t, 2*rows+5, sampled, true))
			for _, dev := range []graph.Device{e.Device(), asynchronous{e.Device()}} {
				c := generate.Config{Rows: rows, Chunk: 4}
				if got := continuedBy(t, dev, e.Memory(), e.Model(), c, several(t, 2*rows+5, sampled, false)); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("%d rows, sampled %v, %T:\n%v, want\n%v", rows, sampled, dev, got, want)
				}
			}
		}
	}
}

// TestAhead: while a device draws ahead, a sequence can't be used in another way; Settle ends that.
// The device does not draw ahead beyond the capacity of the caches.
func TestAhead(t *testing.T) {
	e := untied(t, 1, 8)
	g, err := generate.New(asynchronous{e.Device()}, e.Memory(), e.Model(), generate.Config{Chunk: 4, Positions: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	other := engine(t, e, generate.Config{Chunk: 4, Positions: 4})
	var got []int32
	token := []int32{5}
	for i := range 3 {
		drawn, err := g.Draw(token, vocab, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		token = []int32{drawn[0]}
		got = append(got, token...)
		if want := min(i+2, 4); g.Position(0) != want {
			t.Errorf("%d tokens are taken, want %d", g.Position(0), want)
		}
		if _, err := g.Next(token); err == nil || !strings.Contains(err.Error(), "Settle") {
			t.Errorf("Next while the next token is drawn: %v", err)
		}
		if err := other.Take(0, g, 0); err == nil || !strings.Contains(err.Error(), "Settle") {
			t.Errorf("Take while the next token is drawn: %v", err)
		}
	}
	last, err := g.Settle()
	if err != nil || len(last) != 1 {
		t.Fatal(last, err)
	}
	got = append(got, last...)
	if none, err := g.Settle(); none != nil || err != nil {
		t.Errorf("settled twice: %v, %v", none, err)
	}
	if _, err := g.Draw(last, vocab, nil, true); err == nil || !strings.Contains(err.Error(), "4 tokens") {
		t.Errorf("a fifth token: %v", err)
	}
	q := generate.Request{Prompt: []int32{5}, Tokens: 4, EOS: never, Sampler: sampler(t, generate.SamplerConfig{TopP: 1, Vocab: vocab})}
	if want := continued(t, e, 1, []generate.Request{q})[0]; !slices.Equal(got, want) {
		t.Errorf("drawn %v, want %v", got, want)
	}
}
