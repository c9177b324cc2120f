package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestRefuses(t *testing.T) {
	url, _ := running(t, model(t), nil)
	for _, c := range []struct {
		body   string
		status int
		param  string
		want   string
	}{
		{``, 400, "", "must be a JSON object"},
		{`null`, 400, "", "must be a JSON object"},
		{`{`, 400, "", "not JSON: unexpected EOF"},
		{`{"prompt"`, 400, "", "not JSON"},
		{`{"prompt": x}`, 400, "", "not JSON: invalid character 'x'"},
		{`{"prompt": "x"} {}`, 400, "", "text after its JSON"},
		{`{"promt": "x"}`, 400, "promt", "no such key; did you mean prompt?"},
		{`{"Prompt": "x"}`, 400, "Prompt", "no such key"},
		{`{"prompt": "x", "prompt": "y"}`, 400, "prompt", "comes twice"},
		{"{\"prompt\": \"\xff\"}", 400, "", "not UTF-8"},
		{`{"prompt": "\ud83d"}`, 400, "", `half of a character, \ud83d`},
		{`{"prompt": "x\ud83d"}`, 400, "", `half of a character, \ud83d`},
		{`{"prompt": "\\\udc00"}`, 400, "", `half of a character, \udc00`},
		{`{"prompt": ["x", null]}`, 400, "prompt", "must be a string, a list"},
		{`{"prompt": [97, null]}`, 400, "prompt", "must be a string, a list"},
		{`{"prompt": [[97], [null]]}`, 400, "prompt", "must be a string, a list"},
		{`{"prompt": "x", "max_tokens": 1.5}`, 400, "max_tokens", "must be a whole number of 64 bits, is 1.5"},
		{`{"prompt": "x", "temperature": "hot"}`, 400, "temperature", `must be a number, is "hot"`},
		{`{"prompt": "x", "echo": 1}`, 400, "echo", "must be true or false, is 1"},
		{`{"prompt": "x", "stream": true, "stream_options": {"x": 1}}`, 400, "stream_options", "no other keys than include_usage"},
		{`{"prompt": "x", "model": ` + strings.Repeat("7", 60) + `}`, 400, "model", "must be a string, is " + strings.Repeat("7", 40) + "..."},
		{`{"prompt": "x", "stop": [null]}`, 400, "stop", "must be a string or a list"},
		{`{"prompt": 7}`, 400, "prompt", "must be a string, a list"},
		{`{"prompt": []}`, 400, "prompt", "empty list"},
		{`{"prompt": [1, 999]}`, 400, "prompt", "no token 999; ids are 0 to 256"},
		{`{"model": "gpt", "prompt": "x"}`, 404, "model", `no model "gpt"; there is "tiny"`},
		{`{"prompt": "x", "max_tokens": -1}`, 400, "max_tokens", "must not be negative"},
		{`{"prompt": "x", "max_tokens": 400}`, 400, "max_tokens", "more than the 400"},
		{`{"prompt": "x", "max_tokens": 9223372036854775807}`, 400, "max_tokens", "more than the 400"},
		{`{"prompt": "x", "temperature": -1}`, 400, "temperature", "must be 0 to 100"},
		{`{"prompt": "x", "top_p": 0}`, 400, "top_p", "must be above 0"},
		{`{"prompt": "x", "top_k": -1}`, 400, "top_k", "must be at least 1"},
		{`{"prompt": "x", "logprobs": 99}`, 400, "logprobs", "must be 0 to 20"},
		{`{"prompt": "x", "stop": 7}`, 400, "stop", "must be a string or a list"},
		{`{"prompt": [[]]}`, 400, "prompt", "a list without tokens; the end of text, 256"},
		{`{"prompt": "x", "stop": ["y", ""]}`, 400, "stop", "an empty string"},
		{`{"prompt": "x", "n": 0}`, 400, "n", "at least 1"},
		{`{"prompt": ["x", "y"], "n": 12}`, 400, "prompt", "2 prompts, times n = 12 completions of each, are more than the 23"},
		{`{"prompt": "x", "best_of": 2}`, 400, "best_of", "leave it out"},
		{`{"prompt": "x", "suffix": "y"}`, 400, "suffix", "does not insert"},
		{`{"prompt": "x", "logit_bias": {"5": 1}}`, 400, "logit_bias", "no biases"},
		{`{"prompt": "x", "presence_penalty": 1}`, 400, "presence_penalty", "no penalties"},
		{`{"prompt": "x", "stream_options": {}}`, 400, "stream_options", "only with stream"},
		{`{"prompt": "` + strings.Repeat("x", 1<<14) + `"}`, 413, "", "longer than 16384 bytes"},
	} {
		status, text := post(t, url, c.body)
		var e struct{ Error apiError }
		if err := json.Unmarshal([]byte(text), &e); err != nil || status != c.status || !strings.Contains(e.Error.Message, c.want) || e.Error.Type != "invalid_request_error" {
			t.Errorf("%.60s: %d %s, want %d %s", c.body, status, text, c.status, c.want)
		}
		if c.param != "" && (e.Error.Param == nil || *e.Error.Param != c.param) {
			t.Errorf("%.60s: %s, want param %s", c.body, text, c.param)
		}
	}
}

// TestEncodedBody: a body in another form than it is read in is named as such.
func TestEncodedBody(t *testing.T) {
	url, _ := running(t, model(t), nil)
	for encoding, want := range map[string]int{"gzip": 415, "identity": 200} {
		q, err := http.NewRequest("POST", url+"/v1/completions", strings.NewReader(`{"prompt": "x", "max_tokens": 1}`))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Encoding", encoding)
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != want || want == 415 && !strings.Contains(string(text), "the request is encoded as gzip; send it as it is") {
			t.Errorf("%s: %d %s (%v), want %d", encoding, r.StatusCode, text, err, want)
		}
	}
}

// TestSlowBody: a client that doesn't send what it announced doesn't block the server.
func TestSlowBody(t *testing.T) {
	url, _ := running(t, model(t), func(o *Options) { o.Arrival = 50 * time.Millisecond })
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 Request Timeout") {
		t.Errorf("%v %s", err, answer)
	}
	complete(t, url, `{"prompt": "x", "max_tokens": 50}`) // the deadline applies only to the body
}
