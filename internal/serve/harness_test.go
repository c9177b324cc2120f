package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/generate"
	"github.com/sambatrain/sambatrain/internal/train"
)

// ask sends a request to any path, and decodes the answer, which must be successful, into v.
func ask(t *testing.T, method, url, body string, v any) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	got, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil || got.StatusCode != http.StatusOK || json.Unmarshal(text, v) != nil {
		t.Fatalf("%s %s %s: %d %s", method, url, body, got.StatusCode, text)
	}
}

// conditionals returns the log-probabilities of ids[1:], and the likeliest successor of each of
// ids.
func conditionals(t *testing.T, m *train.Model, ids []int32) (logprobs []float64, best []int32) {
	t.Helper()
	e, err := generate.New(m.Device, m.Memory, m.Model, generate.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.Logits(ids, func(at, n int, scores []float32) error {
		for i := range n {
			row := scores[i*m.Model.VocabSize:][:m.Tokenizer.VocabSize()]
			best = append(best, generate.Best(row))
			if next := at + i + 1; next < len(ids) {
				sum := 0.0
				for _, x := range row {
					sum += math.Exp(float64(x) - float64(row[ids[next]]))
				}
				logprobs = append(logprobs, -math.Log(sum))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return logprobs, best
}

// harness scores continuations of contexts like lm-evaluation-harness's local-completions: token
// ids with the continuation's at the end, one new token, whose entry it leaves out, and sums
// starting at the context's length.
func harness(t *testing.T, url string, prompts any, contexts []int) (sums []float64, greedy []bool) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"model": "tiny", "prompt": prompts, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true})
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Choices []struct {
			Index    int
			Logprobs struct {
				Token []*float64           `json:"token_logprobs"`
				Top   []map[string]float64 `json:"top_logprobs"`
			}
		}
	}
	ask(t, "POST", url+"/v1/completions", string(text), &answer)
	for i, c := range answer.Choices {
		sum, all := 0.0, true
		for at := contexts[i]; at < len(c.Logprobs.Token)-1; at++ {
			sum += *c.Logprobs.Token[at]
			greatest := math.Inf(-1)
			for _, top := range c.Logprobs.Top[at] {
				greatest = max(greatest, top)
			}
			all = all && greatest == *c.Logprobs.Token[at]
		}
		if c.Index != i {
			t.Errorf("choice %d has the index %d", i, c.Index)
		}
		sums, greedy = append(sums, sum), append(greedy, all)
	}
	return sums, greedy
}

// TestHarness: the sums that a harness computes from answers are the model's, for token ids with
// and without an end of text before them, for texts, and for the likeliest continuation.
func TestHarness(t *testing.T) {
	m := model(t)
	url, _ := running(t, m, nil)
	encode := func(begin []int32, text string) []int32 { return encoded(t, m, begin, text) }
	likeliest := encode(nil, "hello")
	for range 5 {
		_, best := conditionals(t, m, likeliest)
		likeliest = append(likeliest, best[len(best)-1])
	}
	for name, c := range map[string]struct {
		ids     []int32
		context int
	}{
		"ids":           {encode(nil, "hello é, world"), 6},
		"one token":     {encode(nil, "he"), 1},
		"end of text":   {encode([]int32{256}, "hello, world"), 1}, // of loglikelihood_rolling
		"the greediest": {likeliest, 5},
	} {
		logprobs, best := conditionals(t, m, c.ids)
		want, wantGreedy := 0.0, true
		for i := c.context - 1; i < len(logprobs); i++ {
			want, wantGreedy = want+logprobs[i], wantGreedy && best[i] == c.ids[i+1]
		}
		sums, greedy := harness(t, url, [][]int32{c.ids, c.ids}, []int{c.context, c.context})
		for i := range sums {
			if !(math.Abs(sums[i]-want) <= 1e-3) || greedy[i] != wantGreedy || len(sums) != 2 {
				t.Errorf("%s: %v %v, want %v %v", name, sums[i], greedy[i], want, wantGreedy)
			}
		}
	}
	// Texts, as with tokenized_requests=False: a context, and no context except the name of the end
	// of text, which is what /detokenize returns for its id.
	logprobs, _ := conditionals(t, m, encode([]int32{256}, "hello, world"))
	for _, c := range []struct {
		text           string
		context, first int // as the harness counts, and as the model does
	}{{"hello, world", 5, 5}, {"<|endoftext|>hello, world", 1, 0}} {
		want := 0.0
		for _, x := range logprobs[c.first:] {
			want += x
		}
		if sums, _ := harness(t, url, c.text, []int{c.context}); !(math.Abs(sums[0]-want) <= 1e-3) {
			t.Errorf("%s: %v, want %v", c.text, sums[0], want)
		}
	}
}

// TestFirstTokenHasNoLogprob: nothing comes before it if the client sent ids; a text comes after an
// end of text.
func TestFirstTokenHasNoLogprob(t *testing.T) {
	url, _ := running(t, model(t), nil)
	l := complete(t, url, `{"prompt": [97, 98], "max_tokens": 0, "echo": true, "logprobs": 1}`).Choices[0].Logprobs
	if len(l.Tokens) != 2 || l.TokenLogprobs[0] != nil || l.TopLogprobs[0] != nil || l.TokenLogprobs[1] == nil || len(l.TopLogprobs[1]) != 2 {
		t.Errorf("ids: %+v", l)
	}
	l = complete(t, url, `{"prompt": "ab", "max_tokens": 0, "echo": true, "logprobs": 1}`).Choices[0].Logprobs
	if len(l.Tokens) != 2 || l.TokenLogprobs[0] == nil || len(l.TopLogprobs[0]) != 2 {
		t.Errorf("text: %+v", l)
	}
}

// TestTextOffsets: they count characters of the text, including for tokens that are later bytes of
// a character.
func TestTextOffsets(t *testing.T) {
	url, _ := running(t, model(t), nil)
	c := complete(t, url, `{"prompt": [256, 97, 195, 169, 98, 226, 130, 99], "max_tokens": 0, "echo": true, "logprobs": 0}`).Choices[0]
	if want := []int{0, 13, 14, 14, 15, 16, 16, 18}; c.Text != "<|endoftext|>aéb\ufffd\ufffdc" || !slices.Equal(c.Logprobs.TextOffset, want) {
		t.Errorf("%q at %v, want %v", c.Text, c.Logprobs.TextOffset, want)
	}
	if want := []string{"<|endoftext|>", "a", `bytes:\xc3`, `bytes:\xa9`, "b", `bytes:\xe2`, `bytes:\x82`, "c"}; !slices.Equal(c.Logprobs.Tokens, want) {
		t.Errorf("tokens %q, want %q", c.Logprobs.Tokens, want)
	}
}

// TestTokenizerPaths: a harness can count tokens with the server, and find the end of text.
func TestTokenizerPaths(t *testing.T) {
	url, _ := running(t, model(t), nil)
	var info struct {
		EOS string  `json:"eos_token"`
		BOS *string `json:"bos_token"`
	}
	ask(t, "GET", url+"/tokenizer_info", "", &info)
	for _, c := range []struct {
		prompt, special string
		want            []int32
	}{
		{"aé", `, "add_special_tokens": false`, []int32{97, 195, 169}},
		{"aé", "", []int32{256, 97, 195, 169}},
		{info.EOS, `, "add_special_tokens": false`, []int32{256}},
		{"", `, "add_special_tokens": false`, []int32{}},
		{info.EOS + "a", "", []int32{256, 97}},
	} {
		var got struct {
			Count, Max int
			Tokens     []int32
		}
		ask(t, "POST", url+"/tokenize", fmt.Sprintf(`{"prompt": %q%s}`, c.prompt, c.special), &got)
		if !slices.Equal(got.Tokens, c.want) || got.Tokens == nil || got.Count != len(c.want) {
			t.Errorf("%q%s: %+v, want %v", c.prompt, c.special, got, c.want)
		}
	}
	var text struct{ Prompt string }
	ask(t, "POST", url+"/detokenize", `{"tokens": [256, 97, 195, 169]}`, &text)
	if text.Prompt != info.EOS+"aé" || info.BOS != nil {
		t.Errorf("text %q, begin of text %v", text.Prompt, info.BOS)
	}
	for path, body := range map[string]string{"/tokenize": `{}`, "/detokenize": `{"tokens": [999]}`, "/detokenize#": `{"tokens": [null]}`} {
		r, err := http.Post(url+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s %s: status %d", path, body, r.StatusCode)
		}
	}
}

// TestNoNumbers: NaN logits of a broken model are an error of the server.
func TestNoNumbers(t *testing.T) {
	m := model(t)
	if err := m.Memory.Write(graph.Params, 0, slices.Repeat([]float32{float32(math.NaN())}, 16*272)); err != nil {
		t.Fatal(err)
	}
	url, _ := running(t, m, nil)
	const request = `{"prompt": "x", "max_tokens": 2, "logprobs": 1`
	if status, text := post(t, url, request+`}`); status != http.StatusInternalServerError || !strings.Contains(text, "NaN") {
		t.Errorf("%d %s", status, text)
	}
	if status, text := post(t, url, request+`, "stream": true}`); status != http.StatusOK || !strings.Contains(text, `{"error":{"message"`) {
		t.Errorf("streamed: %d %s", status, text)
	}
}
