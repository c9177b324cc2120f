package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/checkpoint"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/layers"
	"github.com/sambatrain/sambatrain/optim"
	"github.com/sambatrain/sambatrain/recipes"
)

// model returns an untrained model. Its head is untied: a tied one would repeat a token forever.
func model(t testing.TB) *train.Model {
	t.Helper()
	r := recipes.Defaults()
	r.Name = "tiny"
	m := &r.Model
	m.VocabSize, m.DModel, m.TieEmbeddings = 272, 16, false
	for _, name := range []string{"mamba", "mlp", "swa", "mlp"} {
		m.Layers.Pattern = append(m.Layers.Pattern, layers.Place{Mixer: name})
	}
	m.Attention.Heads, m.Attention.Window, m.MLP.DFF = 2, 16, 32
	dev, err := cpu.New(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	e, err := train.NewEngine(dev, m, optim.DefaultAdamW(), train.EngineConfig{MicroBatch: 1, SeqLen: 8})
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
	return &train.Model{Recipe: &r, Checkpoint: &checkpoint.Checkpoint{}, Model: m, Tokenizer: tok, Device: dev, Memory: e.Memory()}
}

// TestRoom: there must be memory for what clients are promised.
func TestRoom(t *testing.T) {
	m := model(t)
	if free, err := m.Device.FreeMemory(); err != nil || free == 0 {
		t.Skip("no free memory known: ", err)
	}
	m.Model.Layers.Pattern[2].Mixer = "attn"
	for rows, want := range map[int]string{30: "of memory, of ", 1000: "too many elements"} {
		_, stop := running(t, m, func(o *Options) { o.Context, o.Rows = MaxOption, rows })
		if err := stop(); err == nil || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), "; lower --context or --batch") {
			t.Errorf("%d rows: %v", rows, err)
		}
	}
}

// running starts a server and returns its address, and a function that stops it and returns its
// error.
func running(t testing.TB, m *train.Model, change func(o *Options)) (url string, stop func() error) {
	t.Helper()
	_, url, stop = serving(t, m, change)
	return url, stop
}

func serving(t testing.TB, m *train.Model, change func(o *Options)) (s *Server, url string, stop func() error) {
	t.Helper()
	o := Options{Name: "tiny", Rows: 3, Chunk: 8, Queue: 20, Context: 400, Body: 1 << 14, Arrival: time.Minute, Grace: 5 * time.Second, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s = New(m, o)
	go func() { ended <- s.Serve(ctx, l) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return s, "http://" + l.Addr().String(), stop
}

func post(t testing.TB, url, body string) (int, string) {
	t.Helper()
	r, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

func complete(t testing.TB, url, body string) completion {
	t.Helper()
	status, text := post(t, url, body)
	var c completion
	if err := json.Unmarshal([]byte(text), &c); err != nil || status != http.StatusOK {
		t.Fatalf("%s: %d %s", body, status, text)
	}
	return c
}

// encoded returns a text's ids after those of begin.
func encoded(t testing.TB, m *train.Model, begin []int32, text string) []int32 {
	t.Helper()
	ids, err := m.Tokenizer.Encode(begin, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// alone returns what the model generates from a prompt by itself.
func alone(t testing.TB, m *train.Model, prompt string, n int) string {
	t.Helper()
	b, err := generate.NewBatch(m.Device, m.Memory, m.Model, generate.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	greedy, err := generate.NewSampler(generate.SamplerConfig{TopP: 1, Vocab: m.Tokenizer.VocabSize()})
	if err != nil {
		t.Fatal(err)
	}
	var ids []int32
	q := generate.Request{Prompt: encoded(t, m, []int32{m.Tokenizer.EOS()}, prompt), Tokens: n, EOS: m.Tokenizer.EOS(), Sampler: greedy,
		Emit: func(token int32, _ []float32) bool { ids = append(ids, token); return true }}
	if err := b.Run(t.Context(), []generate.Request{q}); err != nil {
		t.Fatal(err)
	}
	return valid(m.Tokenizer.Decode(nil, ids))
}

// TestCompletions: several clients at once get what each would get alone.
func TestCompletions(t *testing.T) {
	m := model(t)
	want := map[string]string{}
	for i := range 6 {
		prompt := strings.Repeat("abc ", i) + "x"
		want[prompt] = alone(t, m, prompt, 20)
	}
	url, _ := running(t, m, nil)
	var all sync.WaitGroup
	for prompt, text := range want {
		all.Go(func() {
			c := complete(t, url, fmt.Sprintf(`{"model": "tiny", "prompt": %q, "max_tokens": 20, "temperature": 0}`, prompt))
			if len(c.Choices) != 1 || c.Choices[0].Text != text || *c.Choices[0].FinishReason != "length" {
				t.Errorf("%q: %+v, want %q", prompt, c.Choices, text)
			}
			if c.Object != "text_completion" || c.Model != "tiny" || !strings.HasPrefix(c.ID, "cmpl-") || c.Usage.PromptTokens != len(prompt) || c.Usage.CompletionTokens != 20 || c.Usage.TotalTokens != len(prompt)+20 {
				t.Errorf("%q: %+v %+v", prompt, c, c.Usage)
			}
		})
	}
	all.Wait()
	c := complete(t, url, `{"prompt": ["x", "abc x"], "max_tokens": 20, "temperature": 0}`)
	if len(c.Choices) != 2 || c.Choices[0].Text != want["x"] || c.Choices[1].Text != want["abc x"] || c.Choices[1].Index != 1 {
		t.Errorf("two prompts: %+v", c.Choices)
	}
	c = complete(t, url, `{"prompt": [[256, 97, 98, 99, 32, 120], [256, 120]], "max_tokens": 20, "temperature": 0}`)
	if c.Choices[0].Text != want["abc x"] || c.Choices[1].Text != want["x"] || c.Usage.PromptTokens != 8 {
		t.Errorf("ids: %+v", c)
	}
	at := strings.IndexFunc(want["x"], func(r rune) bool { return r < 0x80 })
	if at < 0 {
		t.Fatalf("%q has no character to stop at", want["x"])
	}
	stop, err := json.Marshal(want["x"][at : at+1])
	if err != nil {
		t.Fatal(err)
	}
	c = complete(t, url, fmt.Sprintf(`{"prompt": "x", "max_tokens": 20, "temperature": 0, "stop": [%s]}`, stop))
	if before := want["x"][:at]; c.Choices[0].Text != before || *c.Choices[0].FinishReason != "stop" {
		t.Errorf("stop %s: %+v", stop, c.Choices)
	}
	seeded := `{"prompt": "x", "max_tokens": 20, "seed": 7}`
	first := complete(t, url, seeded).Choices[0].Text
	if again := complete(t, url, seeded).Choices[0].Text; again != first {
		t.Error("one seed, two texts")
	}
	c = complete(t, url, `{"prompt": ["x", "y"], "max_tokens": 20, "seed": 7, "n": 2, "best_of": 2}`)
	if len(c.Choices) != 4 || c.Choices[0].Text != first || c.Choices[1].Text == first || c.Choices[3].Index != 3 || c.Usage.PromptTokens != 2 || c.Usage.CompletionTokens > 80 {
		t.Errorf("two of each: %+v", c)
	}
}

// TestLogprobs: those of an echoed prompt are the model's, which is what evaluation harnesses add
// up.
func TestLogprobs(t *testing.T) {
	m := model(t)
	url, _ := running(t, m, nil)
	const prompt = "hello é, world"
	ids := encoded(t, m, []int32{m.Tokenizer.EOS()}, prompt)
	want, likeliest := conditionals(t, m, ids)
	for _, n := range []int{0, 1} {
		c := complete(t, url, fmt.Sprintf(`{"prompt": %q, "max_tokens": %d, "temperature": 0, "logprobs": 1, "echo": true}`, prompt, n))
		l := c.Choices[0].Logprobs
		if len(l.Tokens) != len(want)+n || len(l.TokenLogprobs) != len(want)+n || len(l.TopLogprobs) != len(want)+n || len(l.TextOffset) != len(want)+n {
			t.Fatalf("%d new tokens: %+v", n, l)
		}
		for i := range want {
			if !(math.Abs(*l.TokenLogprobs[i]-want[i]) <= 1e-4) {
				t.Errorf("token %d: %v, want %v", i, *l.TokenLogprobs[i], want[i])
			}
			// The likeliest, and the token itself if that is another one.
			own, top := *l.TokenLogprobs[i], slices.Sorted(maps.Values(l.TopLogprobs[i]))
			if top[0] != own || (len(top) == 1) != (likeliest[i] == ids[i+1]) || len(top) > 2 {
				t.Errorf("token %d: %v, the likeliest %v", i, own, top)
			}
		}
		if l.Tokens[0] != "h" || l.Tokens[6] != `bytes:\xc3` || !strings.HasPrefix(c.Choices[0].Text, prompt) {
			t.Errorf("tokens %q of %q", l.Tokens, c.Choices[0].Text)
		}
	}
}

// TestEndOfTextHasALogprob: it is the last of the new tokens, although it has no text.
func TestEndOfTextHasALogprob(t *testing.T) {
	url, _ := running(t, model(t), nil)
	for seed := range 40 {
		c := complete(t, url, fmt.Sprintf(`{"prompt": "x", "max_tokens": 300, "seed": %d, "logprobs": 0}`, seed))
		if *c.Choices[0].FinishReason != "stop" {
			continue
		}
		l, n := c.Choices[0].Logprobs, c.Usage.CompletionTokens
		if len(l.Tokens) != n+1 || l.Tokens[n] != "<|endoftext|>" || !(*l.TokenLogprobs[n] < 0) || strings.Contains(c.Choices[0].Text, "endoftext") {
			t.Errorf("%d tokens, of which the last are %q", n, l.Tokens[max(0, n-3):])
		}
		return
	}
	t.Error("no text ended by itself")
}

func TestOtherPaths(t *testing.T) {
	url, _ := running(t, model(t), nil)
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/health", 200, `{"status":"ok"}`},
		{"GET", "/healthz", 200, `{"status":"ok"}`},
		{"GET", "/v1/models", 200, `"id":"tiny"`},
		{"GET", "/v1/models/tiny", 200, `"id":"tiny"`},
		{"GET", "/v1/models/other", 404, `no model \"other\"`},
		{"GET", "/v1/completions", 405, "this path takes POST"},
		{"POST", "/tokenizer_info", 405, "this path takes GET"},
		{"POST", "/v1/chat/completions", 404, "no such path; there are /v1/completions, "},
	} {
		r, err := http.NewRequest(c.method, url+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(got.Body)
		got.Body.Close()
		if got.StatusCode != c.status || !bytes.Contains(text, []byte(c.want)) || got.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, got.StatusCode, text, c.status, c.want)
		}
	}
}

// TestQueueIsBounded: prompts that do not fit are refused at once, and a client that disconnects
// makes room.
func TestQueueIsBounded(t *testing.T) {
	s, url, _ := serving(t, model(t), func(o *Options) { o.Rows, o.Queue, o.Context = 1, 1, 1<<20 })
	ctx, cancel := context.WithCancel(t.Context())
	var ended sync.WaitGroup
	for range 2 {
		ended.Go(func() {
			r, _ := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"prompt": "x", "max_tokens": 1000000, "temperature": 0, "stream": true}`))
			if got, err := http.DefaultClient.Do(r); err == nil {
				io.Copy(io.Discard, got.Body)
				got.Body.Close()
			}
		})
	}
	waiting := func(n int64) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); s.waiting.Load() != n; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d prompts wait, want %d", s.waiting.Load(), n)
			}
		}
	}
	waiting(2)
	if status, text := post(t, url, `{"prompt": "x"}`); status != http.StatusTooManyRequests || !strings.Contains(text, "rate_limit_error") {
		t.Errorf("%d %s, want 429", status, text)
	}
	cancel()
	ended.Wait()
	waiting(0)
	if status, text := post(t, url, `{"prompt": "x"}`); status != http.StatusOK {
		t.Errorf("%d %s, want 200", status, text)
	}
}

// TestStop: a request in progress is finished, and no new one is accepted.
func TestStop(t *testing.T) {
	m := model(t)
	url, stop := running(t, m, nil)
	want := alone(t, m, "abc", 300)
	stopped := make(chan error, 1)
	text := ""
	events(t, url, `{"prompt": "abc", "max_tokens": 300, "temperature": 0, "stream": true}`, func(i int, c completion) {
		if i == 0 { // now it is in progress
			go func() { stopped <- stop() }()
		}
		text += c.Choices[0].Text
	})
	if text != want {
		t.Error("the request under way was cut off")
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopped with %v", err)
	}
	if _, err := http.Get(url + "/healthz"); err == nil {
		t.Error("the server still answers")
	}
}
