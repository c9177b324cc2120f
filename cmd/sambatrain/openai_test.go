package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// openaiCompletion is an answer of the API, in the form of OpenAI's client.
type openaiCompletion struct {
	ID, Object, Model string
	Choices           []struct {
		Index        int
		Text         string
		FinishReason string `json:"finish_reason"`
		Logprobs     *struct {
			Tokens        []string
			TokenLogprobs []float64            `json:"token_logprobs"`
			TopLogprobs   []map[string]float64 `json:"top_logprobs"`
			TextOffset    []int                `json:"text_offset"`
		}
	}
	Usage openaiUsage
}

type openaiUsage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

func (c openaiCompletion) texts() []string {
	var list []string
	for _, choice := range c.Choices {
		list = append(list, choice.Text)
	}
	return list
}

// openaiStream is a streamed answer, reassembled.
type openaiStream struct {
	Texts, Reasons []string
	Usage          openaiUsage
	Parts          int
}

// serving starts `sambatrain serve` for a test, and returns the address of its API.
func serving(t *testing.T, dir string, args ...string) string {
	t.Helper()
	c, url := startServer(t, dir, args...)
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	return url
}

// startServer is serving for tests that stop the server themselves.
func startServer(t *testing.T, dir string, args ...string) (c *exec.Cmd, url string) {
	t.Helper()
	c = program(dir, nil, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	stderr, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var log []string
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if url := regexp.MustCompile(`url=(\S+)`).FindStringSubmatch(lines.Text()); url != nil {
			return c, url[1]
		}
		log = append(log, lines.Text())
	}
	c.Process.Kill()
	c.Wait()
	t.Fatalf("the server did not start:\n%s", strings.Join(log, "\n"))
	return nil, ""
}

// TestOpenAIClient: OpenAI's own client completes, streams, counts and reports errors with this
// server as with theirs.
func TestOpenAIClient(t *testing.T) {
	dir := workspace(t, 60, 1000)
	must(t, dir, "pretrain", "tiny.yaml", "--out", "run")
	c := nodeScript(t, []string{"openai"}, "openai.mjs", serving(t, dir, "run", "--name", "bottles"))
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Model, Retrieved, Prompt            string
		Whole, Several, IDs, Echo, Logprobs openaiCompletion
		Stopped                             openaiCompletion
		Streamed, SeveralStreamed           openaiStream
		Refused                             []struct {
			Kind              string
			Status            int
			Type, Param, Code string
		}
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got.Model != "bottles" || got.Retrieved != "bottles" || got.Whole.Model != "bottles" || got.Whole.Object != "text_completion" || !strings.HasPrefix(got.Whole.ID, "cmpl-") {
		t.Errorf("model %q, %q, %+v", got.Model, got.Retrieved, got.Whole)
	}
	n := len(got.Prompt)
	text := got.Whole.Choices[0].Text
	if want := (openaiUsage{n, 12, n + 12}); got.Whole.Usage != want || got.Whole.Choices[0].FinishReason != "length" || len(text) < 12 {
		t.Fatalf("whole: %+v, want the usage %+v", got.Whole, want)
	}
	if s := got.Streamed; !slices.Equal(s.Texts, []string{text}) || !slices.Equal(s.Reasons, []string{"length"}) || s.Usage != got.Whole.Usage || s.Parts < 6 {
		t.Errorf("streamed: %+v, whole %+v", s, got.Whole)
	}
	if s := got.SeveralStreamed; !slices.Equal(s.Texts, got.Several.texts()) || len(s.Texts) != 4 || s.Usage != got.Several.Usage || s.Usage.Prompt != 2*n {
		t.Errorf("several: %+v, streamed %+v", got.Several, s)
	}
	if !slices.Equal(got.IDs.texts(), []string{text}) {
		t.Errorf("ids: %+v, want %q", got.IDs, text)
	}
	if l := got.Echo.Choices[0].Logprobs; got.Echo.Choices[0].Text != got.Prompt || !slices.Equal(l.Tokens, strings.Split(got.Prompt, "")) || !reflect.DeepEqual(l.TextOffset, []int{0, 1, 2, 3, 4, 5, 6}) {
		t.Errorf("echo: %+v, logprobs %+v", got.Echo, l)
	}
	for i, top := range got.Logprobs.Choices[0].Logprobs.TopLogprobs {
		l := got.Logprobs.Choices[0].Logprobs
		if len(top) != 2 || top[l.Tokens[i]] != l.TokenLogprobs[i] || l.TokenLogprobs[i] > 0 || len(l.Tokens) != 3 {
			t.Errorf("logprobs %d: %+v", i, l)
		}
	}
	if stopped := got.Stopped.Choices[0]; stopped.Text != text[:strings.Index(text, text[4:6])] || stopped.FinishReason != "stop" {
		t.Errorf("stopped: %+v, whole %q", stopped, text)
	}
	for i, want := range []string{"BadRequestError 400 max_tokens", "NotFoundError 404 model", "BadRequestError 400 suffix", "BadRequestError 400 max_tokens"} {
		r := got.Refused[i]
		if text := fmt.Sprintf("%s %d %s", r.Kind, r.Status, r.Param); text != want || r.Type != "invalid_request_error" {
			t.Errorf("refused %d: %+v, want %s", i, r, want)
		}
	}
	if got.Refused[1].Code != "model_not_found" {
		t.Errorf("another model: %+v", got.Refused[1])
	}
}
