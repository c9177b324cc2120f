package generate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
)

func sampler(t testing.TB, c generate.SamplerConfig) *generate.Sampler {
	t.Helper()
	s, err := generate.NewSampler(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// never is no token: a text with this EOS does not end by itself.
const never = int32(vocab)

// untied is a model whose texts differ; with a tied head, random weights repeat the last
// token for ever.
func untied(t testing.TB, rows, seq int) *train.Engine {
	m := model("mamba", "mlp", "swa", "mlp")
	m.TieEmbeddings = false
	return parallel(t, m, rows, seq)
}

// continued is what follows prompts in batches of so many rows.
func continued(t *testing.T, e *train.Engine, rows int, list []generate.Request) [][]int32 {
	t.Helper()
	b, err := generate.NewBatch(e.Device(), e.Memory(), e.Model(), generate.Config{Rows: rows, Chunk: 4})
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

// TestBatch: texts that go on together, more of them than there are rows, are those that
// each gives alone: the likeliest tokens after all that came before.
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
		if got := continued(t, e, rows, requests()); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%d rows:\n%v, want\n%v", rows, got, want)
		}
	}
}

// TestEnds: by EOS, by the receiver, by the count.
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

// TestRead: the prompt's scores are handed on, how far it is read is said, and cancelling ends a prompt.
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

// TestSameSeedSameText on batches of their own; another seed gives another text.
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
