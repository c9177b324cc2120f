package serve

import (
	"context"
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

// text is one continuation of a prompt in progress. The worker writes it, and the handler reads it
// when it is done; for a streamed answer it takes parts.
type text struct {
	index  int
	prompt prompt
	first  bool // the first of the prompt's continuations
	max    int
	stream *generate.Stream
	scores *recorder // nil if no log-probabilities are requested
	parts  *parts    // nil if the answer is not streamed
	done   chan struct{}

	begun  bool
	echo   []byte // the prompt's text, until it is in out
	out    []byte
	tokens int
	reason string
	err    error
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	if s.closing.Load() {
		fail(w, &apiError{status: http.StatusServiceUnavailable, Message: "the server is stopping"})
		return
	}
	q, err := s.read(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	n := int64(len(q.prompts) * *q.N)
	if s.waiting.Add(n) > int64(cap(s.jobs)) {
		s.waiting.Add(-n)
		w.Header().Set("Retry-After", "1")
		fail(w, &apiError{status: http.StatusTooManyRequests, Message: "too many requests are waiting; try again later"})
		return
	}
	defer s.waiting.Add(-n)
	// Texts that nobody waits for end with the request.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer http.NewResponseController(w).SetWriteDeadline(time.Time{}) // the connection may carry further requests
	texts, err := s.start(ctx, q)
	if err != nil {
		fail(w, err)
		return
	}
	c := completion{ID: fmt.Sprintf("cmpl-%016x", rand.Uint64()), Object: "text_completion", Created: time.Now().Unix(), Model: s.name, Choices: []choice{}}
	if q.Stream {
		s.streamed(w, r, q, c, texts)
		return
	}
	for _, t := range texts {
		select {
		case <-t.done:
		case <-r.Context().Done():
			return
		}
		if t.err != nil {
			fail(w, t.err)
			return
		}
		c.Choices = append(c.Choices, choice{Index: t.index, Text: valid(t.out), Logprobs: t.scores.take(), FinishReason: &t.reason})
	}
	c.Usage = used(texts)
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.options.Arrival))
	answer(w, c)
}

// used counts tokens: those of a prompt once, however many continuations it has.
func used(texts []*text) *usage {
	u := &usage{}
	for _, t := range texts {
		if t.first {
			u.PromptTokens += len(t.prompt.given())
		}
		u.CompletionTokens += t.tokens
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return u
}

// start passes a request's prompts to the worker, each as often as it is to be continued.
func (s *Server) start(ctx context.Context, q *completionRequest) ([]*text, error) {
	tok := s.model.Tokenizer
	var texts []*text
	var samplers []*generate.Sampler
	var streamed *parts
	if q.Stream {
		streamed = newParts()
	}
	seed := rand.Uint64()
	for index := range len(q.prompts) * *q.N {
		sampler, err := q.sampler(tok.VocabSize(), index, seed)
		if err != nil {
			return nil, &apiError{status: http.StatusBadRequest, Message: err.Error()}
		}
		p := q.prompts[index / *q.N]
		t := &text{index: index, prompt: p, first: index%*q.N == 0, max: *q.MaxTokens, parts: streamed, done: make(chan struct{}), reason: "stop",
			stream: generate.NewStream(tok.Decode, p.ids, q.stops)}
		if q.Echo {
			t.echo = spelt(tok, p.given())
		}
		if q.Logprobs != nil {
			t.scores = newRecorder(tok, *q.Logprobs, p, q.Echo)
		}
		texts, samplers = append(texts, t), append(samplers, sampler)
	}
	for i, t := range texts {
		s.jobs <- &job{ctx, t.request(ctx, s, q, samplers[i]), t.fail}
	}
	return texts, nil
}

// request returns the work for the worker.
func (t *text) request(ctx context.Context, s *Server, q *completionRequest, sampler *generate.Sampler) generate.Request {
	r := generate.Request{
		Prompt: t.prompt.ids, Tokens: t.max, EOS: s.model.Tokenizer.EOS(), Sampler: sampler,
		Emit: func(token int32, scores []float32) bool {
			if ctx.Err() != nil {
				return false
			}
			t.begin()
			t.tokens++
			more, stopped := t.stream.Push(token)
			t.scores.add(token, scores)
			if t.tokens == t.max && !stopped {
				t.reason = "length"
			}
			t.add(more)
			return !stopped
		},
		End: func() {
			t.begin()
			if t.max == 0 {
				t.reason = "length"
			}
			t.add(t.stream.Rest())
			t.end()
		},
		Fail: func(err error) { t.fail(noMemory(err)) },
	}
	if t.scores != nil {
		r.Scores = true
		// An end of text is a new token, too: harnesses that request one leave out the last one.
		r.EndOfText = func(scores []float32) { t.begin(); t.scores.add(r.EOS, scores) }
	}
	if q.Echo && t.scores != nil {
		vocab := s.model.Model.VocabSize
		r.Read = func(at, n int, scores []float32) error {
			for i := range n {
				if next := at + i + 1; next < len(t.prompt.ids) {
					t.scores.add(t.prompt.ids[next], scores[i*vocab:(i+1)*vocab])
				}
			}
			return nil
		}
	}
	return r
}

// begin puts an echo of the prompt before its continuation.
func (t *text) begin() {
	if !t.begun {
		t.begun = true
		t.add(t.echo)
	}
}

func (t *text) add(more []byte) {
	t.out = append(t.out, more...)
	if t.parts == nil {
		return
	}
	if l := t.scores.take(); len(more) > 0 || l != nil && len(l.Tokens) > 0 {
		t.parts.put(choice{Index: t.index, Text: valid(more), Logprobs: l})
	}
}

func (t *text) end() {
	if t.parts != nil && t.err == nil {
		t.parts.put(choice{Index: t.index, FinishReason: &t.reason})
	}
	close(t.done)
}

func (t *text) fail(err error) {
	t.err = err
	if t.parts != nil {
		t.parts.fail(err)
	}
	t.end()
}

// valid returns text for JSON: each byte that is not part of a character becomes U+FFFD.
func valid(text []byte) string { return string([]rune(string(text))) }
