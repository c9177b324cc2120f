package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/internal/generate"
)

const (
	maxStops    = 16
	maxLogprobs = 20
)

// completionRequest is a body of /v1/completions.
type completionRequest struct {
	Model         string          `json:"model"`
	Prompt        json.RawMessage `json:"prompt"`
	MaxTokens     *int            `json:"max_tokens"`
	Temperature   *float64        `json:"temperature"`
	TopP          *float64        `json:"top_p"`
	TopK          *int            `json:"top_k"`
	Seed          *int64          `json:"seed"`
	Stop          json.RawMessage `json:"stop"`
	Stream        bool            `json:"stream"`
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Logprobs *int   `json:"logprobs"`
	Echo     bool   `json:"echo"`
	N        *int   `json:"n"`
	User     string `json:"user"` // says who asks; it has no effect

	// What this server does not support.
	BestOf           *int            `json:"best_of"`
	Suffix           *string         `json:"suffix"`
	PresencePenalty  *float64        `json:"presence_penalty"`
	FrequencyPenalty *float64        `json:"frequency_penalty"`
	LogitBias        json.RawMessage `json:"logit_bias"`

	prompts []prompt
	stops   []string
}

// prompt is the tokens that a text starts with.
type prompt struct {
	ids   []int32
	begun bool // with an end of text that the client did not send
}

// given returns what the client sent.
func (p prompt) given() []int32 {
	if p.begun {
		return p.ids[1:]
	}
	return p.ids
}

func bad(param, format string, args ...any) error {
	return &apiError{status: http.StatusBadRequest, Param: &param, Message: param + ": " + fmt.Sprintf(format, args...)}
}

// read decodes and checks a request.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (*completionRequest, error) {
	q := &completionRequest{}
	if err := s.decode(w, r, q, &q.Model); err != nil {
		return nil, err
	}
	for _, check := range []func() error{q.unsupported, q.defaults, q.readStops} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	if err := q.readPrompts(s.model.Tokenizer); err != nil {
		return nil, err
	}
	return q, s.checkLimits(q)
}

// decode reads a request's body into q, which must have all its keys, and checks the model that it
// names.
func (s *Server) decode(w http.ResponseWriter, r *http.Request, q any, model *string) error {
	body, err := s.body(w, r)
	if err != nil {
		return err
	}
	if err := decodeObject(body, q); err != nil {
		return err
	}
	return s.known(*model)
}

// body reads a request's body, which must arrive within a time limit.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, &apiError{status: http.StatusUnsupportedMediaType, Message: fmt.Sprintf("the request is encoded as %s; send it as it is", encoding)}
	}
	c := http.NewResponseController(w)
	c.SetReadDeadline(time.Now().Add(s.options.Arrival))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.options.Body))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, &apiError{status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the request is longer than %d bytes", s.options.Body)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.Header().Set("Connection", "close")
		return nil, &apiError{status: http.StatusRequestTimeout, Message: fmt.Sprintf("the request did not arrive whole in %v", s.options.Arrival)}
	case err != nil:
		return nil, wrong("the request did not arrive whole")
	}
	c.SetReadDeadline(time.Time{}) // otherwise it would end the texts of this request
	return body, nil
}

// known rejects the name of another model.
func (s *Server) known(model string) error {
	if model == "" || model == s.name {
		return nil
	}
	param, code := "model", "model_not_found"
	return &apiError{status: http.StatusNotFound, Param: &param, Code: &code, Message: fmt.Sprintf("no model %q; there is %q", model, s.name)}
}

func (q *completionRequest) unsupported() error {
	switch {
	case q.BestOf != nil && *q.BestOf != 1 && (q.N == nil || *q.BestOf != *q.N):
		return bad("best_of", "this server gives all completions that it makes: leave it out, or give it the value of n")
	case q.Suffix != nil && *q.Suffix != "":
		return bad("suffix", "this server does not insert text")
	case q.PresencePenalty != nil && *q.PresencePenalty != 0:
		return bad("presence_penalty", "this server has no penalties")
	case q.FrequencyPenalty != nil && *q.FrequencyPenalty != 0:
		return bad("frequency_penalty", "this server has no penalties")
	case len(q.LogitBias) > 0 && string(q.LogitBias) != "null" && string(q.LogitBias) != "{}":
		return bad("logit_bias", "this server has no biases")
	}
	return nil
}

// defaults fills in the API's defaults, and checks numbers.
func (q *completionRequest) defaults() error {
	if q.MaxTokens == nil {
		q.MaxTokens = new(int)
		*q.MaxTokens = 16
	}
	if q.Temperature == nil {
		q.Temperature = new(float64)
		*q.Temperature = 1
	}
	if q.TopP == nil {
		q.TopP = new(float64)
		*q.TopP = 1
	}
	if q.N == nil {
		q.N = new(int)
		*q.N = 1
	}
	if q.TopK == nil {
		q.TopK = new(int)
	}
	switch {
	case *q.N < 1:
		return bad("n", "must be at least 1, is %d", *q.N)
	case *q.MaxTokens < 0:
		return bad("max_tokens", "must not be negative, is %d", *q.MaxTokens)
	case !(*q.Temperature >= 0 && *q.Temperature <= 100):
		return bad("temperature", "must be 0 to 100, is %v", *q.Temperature)
	case !(*q.TopP > 0 && *q.TopP <= 1):
		return bad("top_p", "must be above 0 and at most 1, is %v", *q.TopP)
	case *q.TopK < 0:
		return bad("top_k", "must be at least 1, or 0 for all, is %d", *q.TopK)
	case q.Logprobs != nil && (*q.Logprobs < 0 || *q.Logprobs > maxLogprobs):
		return bad("logprobs", "must be 0 to %d, is %d", maxLogprobs, *q.Logprobs)
	case q.StreamOptions != nil && !q.Stream:
		return bad("stream_options", "only with stream")
	}
	return nil
}

func (q *completionRequest) readStops() error {
	if len(q.Stop) == 0 || string(q.Stop) == "null" {
		return nil
	}
	var one string
	var err error
	if json.Unmarshal(q.Stop, &one) == nil {
		q.stops = []string{one}
	} else if q.stops, err = listOf[string](q.Stop); err != nil {
		return bad("stop", "must be a string or a list of strings")
	}
	if len(q.stops) > maxStops {
		return bad("stop", "must be %d strings at most, is %d", maxStops, len(q.stops))
	}
	if slices.Contains(q.stops, "") {
		return bad("stop", "an empty string would end every text at once; leave it out")
	}
	return nil
}

// readPrompts accepts a string, a list of strings, a list of token ids or a list of such lists. A
// text prompt starts like documents in training, after an end of text; token ids are used as they
// are, so that a client can decide whether there is one.
func (q *completionRequest) readPrompts(tok data.Tokenizer) error {
	texts, ids, err := q.promptLists()
	if err != nil {
		return err
	}
	for _, t := range texts {
		p, err := textPrompt(tok, t)
		if err != nil {
			return err
		}
		q.prompts = append(q.prompts, p)
	}
	for _, p := range ids {
		if len(p) == 0 {
			return bad("prompt", "has a list without tokens; the end of text, %d, begins a text", tok.EOS())
		}
		if err := checkTokens("prompt", p, tok); err != nil {
			return err
		}
		q.prompts = append(q.prompts, prompt{p, false})
	}
	if len(q.prompts) == 0 {
		return bad("prompt", "is an empty list")
	}
	return nil
}

func (q *completionRequest) promptLists() (texts []string, ids [][]int32, err error) {
	var one string
	if len(q.Prompt) == 0 || json.Unmarshal(q.Prompt, &one) == nil { // null also means an empty text
		return []string{one}, nil, nil
	}
	if texts, err := listOf[string](q.Prompt); err == nil {
		return texts, nil, nil
	}
	if list, err := listOf[int32](q.Prompt); err == nil {
		return nil, [][]int32{list}, nil
	}
	lists, err := listOf[json.RawMessage](q.Prompt)
	for _, list := range lists {
		p, e := listOf[int32](list)
		ids, err = append(ids, p), errors.Join(err, e)
	}
	if err != nil {
		err = bad("prompt", "must be a string, a list of strings, a list of token ids, or a list of such lists")
	}
	return nil, ids, err
}

// textPrompt is a text after an end of text. The client may also have sent that by its name, in
// which case it is part of the client's prompt.
func textPrompt(tok data.Tokenizer, text string) (prompt, error) {
	rest, sent := strings.CutPrefix(text, endOfText)
	ids, err := tok.Encode([]int32{tok.EOS()}, []byte(rest))
	if err != nil {
		return prompt{}, bad("prompt", "%v", err)
	}
	return prompt{ids, !sent}, nil
}

func checkTokens(param string, ids []int32, tok data.Tokenizer) error {
	for _, id := range ids {
		if id < 0 || int(id) >= tok.VocabSize() {
			return bad(param, "there is no token %d; ids are 0 to %d", id, tok.VocabSize()-1)
		}
	}
	return nil
}

func (s *Server) checkLimits(q *completionRequest) error {
	if n := len(q.prompts); n > cap(s.jobs) / *q.N {
		return bad("prompt", "%d prompts, times n = %d completions of each, are more than the %d that this server takes at once", n, *q.N, cap(s.jobs))
	}
	for _, p := range q.prompts {
		if n := len(p.given()); n > s.options.Context || *q.MaxTokens > s.options.Context-n {
			return bad("max_tokens", "the prompt's %d tokens and %d new ones are more than the %d that this server takes", n, *q.MaxTokens, s.options.Context)
		}
	}
	return nil
}

// sampler draws prompt i's tokens.
func (q *completionRequest) sampler(vocab, i int, seed uint64) (*generate.Sampler, error) {
	if q.Seed != nil {
		seed = uint64(*q.Seed)
	}
	return generate.NewSampler(generate.SamplerConfig{
		Temperature: *q.Temperature, TopP: *q.TopP, TopK: *q.TopK, Vocab: vocab, Seed: seed + uint64(i)})
}
