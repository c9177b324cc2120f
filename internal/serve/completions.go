package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/sambatrain/sambatrain/internal/generate"
)

// completion is an answer of /v1/completions, or a part of a streamed one.
type completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	Usage   *usage   `json:"usage,omitempty"`
}

type choice struct {
	Index        int       `json:"index"`
	Text         string    `json:"text"`
	Logprobs     *logprobs `json:"logprobs"`
	FinishReason *string   `json:"finish_reason"`
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// text is one prompt's continuation under way. The worker writes it, and the handler
// reads it when parts says so, or when it is done.
type text struct {
	index    int
	prompt   []int32
	max      int
	stream   *generate.Stream
	logprobs *logprobs
	parts    chan string // new text, for a streamed answer; room for all of it
	done     chan struct{}

	out    []byte
	tokens int
	reason string
	err    error
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	if s.closing.Load() {
		fail(w, http.StatusServiceUnavailable, "server_error", "", "the server is stopping")
		return
	}
	q, err := s.read(w, r)
	var wrong *badRequest
	if errors.As(err, &wrong) {
		fail(w, wrong.status, "invalid_request_error", wrong.param, wrong.message)
		return
	}
	n := int64(len(q.prompts))
	if s.waiting.Add(n) > int64(cap(s.jobs)) {
		s.waiting.Add(-n)
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusTooManyRequests, "rate_limit_error", "", "too many requests are waiting; try again later")
		return
	}
	defer s.waiting.Add(-n)
	// Texts that nobody waits for end with the request.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	texts, err := s.start(ctx, q)
	if err != nil {
		fail(w, http.StatusBadRequest, "invalid_request_error", "", err.Error())
		return
	}
	c := completion{ID: fmt.Sprintf("cmpl-%016x", rand.Uint64()), Object: "text_completion", Created: time.Now().Unix(), Model: s.name, Choices: []choice{}}
	if q.Stream {
		s.streamed(w, r, q, c, texts[0])
		return
	}
	c.Usage = &usage{}
	for _, t := range texts {
		select {
		case <-t.done:
		case <-r.Context().Done():
			return
		}
		if t.err != nil {
			fail(w, http.StatusInternalServerError, "server_error", "", t.err.Error())
			return
		}
		c.Choices = append(c.Choices, t.choice(s, q))
		c.Usage.add(t)
	}
	answer(w, http.StatusOK, c)
}

func (u *usage) add(t *text) {
	u.PromptTokens += len(t.prompt) - 1
	u.CompletionTokens += t.tokens
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
}

// choice is a finished text as the API has it.
func (t *text) choice(s *Server, q *completionRequest) choice {
	c := choice{Index: t.index, Text: valid(t.out), FinishReason: &t.reason}
	if q.Echo {
		c.Text = valid(append(s.model.Tokenizer.Decode(nil, t.prompt), t.out...))
	}
	if t.logprobs != nil {
		t.logprobs.finish()
		c.Logprobs = t.logprobs
	}
	return c
}

// start hands a request's prompts to the worker.
func (s *Server) start(ctx context.Context, q *completionRequest) ([]*text, error) {
	var texts []*text
	seed := rand.Uint64()
	for i, p := range q.prompts {
		sampler, err := q.sampler(s.model.Tokenizer.VocabSize(), i, seed)
		if err != nil {
			return nil, err
		}
		t := &text{index: i, prompt: p, max: *q.MaxTokens, done: make(chan struct{}), reason: "stop",
			stream: generate.NewStream(s.model.Tokenizer.Decode, p, q.stops)}
		if q.Stream {
			t.parts = make(chan string, *q.MaxTokens+1)
		}
		if q.Logprobs != nil {
			t.logprobs = &logprobs{tok: s.model.Tokenizer, most: *q.Logprobs}
		}
		texts = append(texts, t)
		s.jobs <- &job{ctx, t.request(ctx, s, q, sampler), t.fail}
	}
	return texts, nil
}

// request is what the worker does.
func (t *text) request(ctx context.Context, s *Server, q *completionRequest, sampler *generate.Sampler) generate.Request {
	r := generate.Request{
		Prompt: t.prompt, Tokens: t.max, EOS: s.model.Tokenizer.EOS(), Sampler: sampler,
		Emit: func(token int32, scores []float32) bool {
			if ctx.Err() != nil {
				return false
			}
			t.tokens++
			more, stopped := t.stream.Push(token)
			t.add(more)
			if t.logprobs != nil {
				t.logprobs.add(token, scores)
			}
			if t.tokens == t.max && !stopped {
				t.reason = "length"
			}
			return !stopped
		},
		End: func() {
			t.add(t.stream.Rest())
			if t.max == 0 {
				t.reason = "length"
			}
			close(t.done)
		},
	}
	if t.logprobs != nil {
		// An end of text is a new token, too: harnesses that ask for one leave the last out.
		r.EndOfText = func(scores []float32) { t.logprobs.add(r.EOS, scores) }
	}
	if q.Echo && t.logprobs != nil {
		vocab := s.model.Model.VocabSize
		r.Read = func(at, n int, scores []float32) error {
			for i := range n {
				if next := at + i + 1; next < len(t.prompt) {
					t.logprobs.add(t.prompt[next], scores[i*vocab:(i+1)*vocab])
				}
			}
			return nil
		}
	}
	return r
}

func (t *text) add(more []byte) {
	t.out = append(t.out, more...)
	if t.parts != nil && len(more) > 0 {
		t.parts <- valid(more)
	}
}

func (t *text) fail(err error) {
	t.err = err
	close(t.done)
}

// streamed sends text as it comes, in server-sent events.
func (s *Server) streamed(w http.ResponseWriter, r *http.Request, q *completionRequest, c completion, t *text) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	out := http.NewResponseController(w)
	send := func(c completion) {
		line, err := json.Marshal(c)
		if err == nil {
			fmt.Fprintf(w, "data: %s\n\n", line)
			out.Flush()
		}
	}
	part := func(text string, reason *string) {
		c.Choices = []choice{{Text: text, FinishReason: reason}}
		send(c)
	}
	for {
		select {
		case text := <-t.parts:
			part(text, nil)
			continue
		case <-r.Context().Done():
			return
		case <-t.done:
		}
		break
	}
	for len(t.parts) > 0 {
		part(<-t.parts, nil)
	}
	if t.err != nil {
		line, _ := json.Marshal(map[string]apiError{"error": {Message: t.err.Error(), Type: "server_error"}})
		fmt.Fprintf(w, "data: %s\n\n", line)
		return
	}
	part("", &t.reason)
	if q.StreamOptions != nil && q.StreamOptions.IncludeUsage {
		c.Choices, c.Usage = []choice{}, &usage{}
		c.Usage.add(t)
		send(c)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
	out.Flush()
}

// valid is text for JSON: each byte that is no character's becomes U+FFFD.
func valid(text []byte) string { return string([]rune(string(text))) }
