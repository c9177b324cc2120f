package serve

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// stream posts a request and returns the contents of its events.
func stream(t *testing.T, url, body string) (all []completion) {
	t.Helper()
	events(t, url, body, func(_ int, c completion) { all = append(all, c) })
	return all
}

// events posts a request and calls f with each of its events as it arrives.
func events(t *testing.T, url, body string, f func(i int, c completion)) {
	t.Helper()
	r, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got := r.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("content type %s", got)
	}
	n := 0
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		line, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if line == "[DONE]" {
			return
		}
		var c completion
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		f(n, c)
		n++
	}
	t.Fatalf("no [DONE] after %d events", n)
}

// TestStream: the parts of each text add up to the unstreamed answer, and the tokens are counted at
// the end.
func TestStream(t *testing.T) {
	url, _ := running(t, model(t), nil)
	for name, options := range map[string]string{
		"text":     `"prompt": "abc"`,
		"logprobs": `"prompt": "abc", "logprobs": 2`,
		"echo":     `"prompt": "abc", "echo": true`,
		"several":  `"prompt": [[97, 98], [256, 120]], "n": 2, "echo": true, "logprobs": 1`,
		"prompt":   `"prompt": "abc", "echo": true, "logprobs": 0, "max_tokens": 0`,
		"nothing":  `"prompt": "abc", "max_tokens": 0`,
	} {
		if !strings.Contains(options, "max_tokens") {
			options += `, "max_tokens": 30`
		}
		whole := complete(t, url, `{`+options+`, "seed": 3}`)
		events := stream(t, url, `{`+options+`, "seed": 3, "stream": true, "stream_options": {"include_usage": true}}`)
		last := events[len(events)-1]
		if len(last.Choices) != 0 || !reflect.DeepEqual(last.Usage, whole.Usage) {
			t.Errorf("%s: the last event is %+v, want the usage %+v", name, last, whole.Usage)
		}
		got := make([]choice, len(whole.Choices))
		for i := range got {
			got[i].Index = i
			if whole.Choices[i].Logprobs != nil {
				got[i].Logprobs = newLogprobs()
			}
		}
		parts := 0
		for _, e := range events[:len(events)-1] {
			if len(e.Choices) != 1 || e.ID != events[0].ID || e.Object != "text_completion" || e.Usage != nil {
				t.Fatalf("%s: event %+v", name, e)
			}
			part := e.Choices[0]
			all := &got[part.Index]
			if all.FinishReason != nil {
				t.Errorf("%s: text %d continues after its end", name, part.Index)
			}
			all.Text += part.Text
			all.FinishReason = part.FinishReason
			if part.Text != "" {
				parts++
			}
			if l := part.Logprobs; l != nil {
				all.Logprobs.Tokens = append(all.Logprobs.Tokens, l.Tokens...)
				all.Logprobs.TokenLogprobs = append(all.Logprobs.TokenLogprobs, l.TokenLogprobs...)
				all.Logprobs.TopLogprobs = append(all.Logprobs.TopLogprobs, l.TopLogprobs...)
				all.Logprobs.TextOffset = append(all.Logprobs.TextOffset, l.TextOffset...)
			}
		}
		if !reflect.DeepEqual(got, whole.Choices) {
			t.Errorf("%s: streamed %+v, want %+v", name, got, whole.Choices)
		}
		if whole.Usage.CompletionTokens > 20 && parts < 10 {
			t.Errorf("%s: %d tokens came in %d parts", name, whole.Usage.CompletionTokens, parts)
		}
	}
}

// TestStalledClient: a client that doesn't accept its answer makes room for others.
func TestStalledClient(t *testing.T) {
	s, url, _ := serving(t, model(t), func(o *Options) { o.Rows, o.Queue, o.Context, o.Arrival = 1, 0, 1<<20, 200*time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	body := `{"prompt": "x", "max_tokens": 1000000, "logprobs": 20, "temperature": 0, "stream": true}`
	if _, err := fmt.Fprintf(c, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
		t.Fatal(err)
	}
	for _, waiting := range []int64{1, 0} {
		for deadline := time.Now().Add(20 * time.Second); s.waiting.Load() != waiting; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d prompts wait, want %d", s.waiting.Load(), waiting)
			}
		}
		if waiting == 1 {
			if status, text := post(t, url, `{"prompt": "x"}`); status != http.StatusTooManyRequests {
				t.Errorf("%d %s, want 429", status, text)
			}
		}
	}
	if got := complete(t, url, `{"prompt": "x", "max_tokens": 3}`); len(got.Choices) != 1 {
		t.Errorf("another client gets %+v", got)
	}
}
