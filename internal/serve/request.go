package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

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
	User     string `json:"user"` // says who asks; nothing depends on it

	// What this server does not do.
	N                *int            `json:"n"`
	BestOf           *int            `json:"best_of"`
	Suffix           *string         `json:"suffix"`
	PresencePenalty  *float64        `json:"presence_penalty"`
	FrequencyPenalty *float64        `json:"frequency_penalty"`
	LogitBias        json.RawMessage `json:"logit_bias"`

	prompts [][]int32 // with an end of text before each
	stops   []string
}

// badRequest is a request that can't be answered.
type badRequest struct {
	status         int
	param, message string
}

func (e *badRequest) Error() string { return e.message }

func bad(param, format string, args ...any) error {
	return &badRequest{http.StatusBadRequest, param, param + ": " + fmt.Sprintf(format, args...)}
}

// read decodes and checks a request.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (*completionRequest, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.options.Body))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, &badRequest{http.StatusRequestEntityTooLarge, "", fmt.Sprintf("the request is longer than %d bytes", s.options.Body)}
	}
	if err != nil {
		return nil, &badRequest{http.StatusBadRequest, "", "the request did not arrive whole"}
	}
	q := &completionRequest{}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(q); err != nil {
		return nil, &badRequest{http.StatusBadRequest, "", "the request is not what this API takes: " + strings.TrimPrefix(err.Error(), "json: ")}
	}
	if d.More() {
		return nil, &badRequest{http.StatusBadRequest, "", "the request has text after its JSON"}
	}
	if q.Model != "" && q.Model != s.name {
		return nil, &badRequest{http.StatusNotFound, "model", fmt.Sprintf("no model %q; there is %q", q.Model, s.name)}
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

func (q *completionRequest) unsupported() error {
	switch {
	case q.N != nil && *q.N != 1:
		return bad("n", "this server gives one completion for each prompt, not %d", *q.N)
	case q.BestOf != nil && *q.BestOf != 1:
		return bad("best_of", "this server gives one completion for each prompt, not the best of %d", *q.BestOf)
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

// defaults fills in the API's, and checks numbers.
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
	if q.TopK == nil {
		q.TopK = new(int)
	}
	switch {
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
	if err := json.Unmarshal(q.Stop, &one); err == nil {
		q.stops = []string{one}
	} else if err := json.Unmarshal(q.Stop, &q.stops); err != nil {
		return bad("stop", "must be a string or a list of strings")
	}
	if len(q.stops) > maxStops {
		return bad("stop", "must be %d strings at most, is %d", maxStops, len(q.stops))
	}
	return nil
}

// readPrompts takes a string, a list of strings, a list of token ids or a list of such
// lists. Each prompt begins a text, as documents do in training: behind an end of text.
func (q *completionRequest) readPrompts(tok data.Tokenizer) error {
	var texts []string
	var ids [][]int32
	var one string
	var list []int32
	switch {
	case len(q.Prompt) == 0 || string(q.Prompt) == "null":
		texts = []string{""}
	case json.Unmarshal(q.Prompt, &one) == nil:
		texts = []string{one}
	case json.Unmarshal(q.Prompt, &texts) == nil:
	case json.Unmarshal(q.Prompt, &list) == nil:
		ids, texts = [][]int32{list}, nil
	case json.Unmarshal(q.Prompt, &ids) == nil:
		texts = nil
	default:
		return bad("prompt", "must be a string, a list of strings, a list of token ids, or a list of such lists")
	}
	for _, t := range texts {
		q.prompts = append(q.prompts, tok.Encode([]int32{tok.EOS()}, []byte(t)))
	}
	for _, p := range ids {
		for _, id := range p {
			if id < 0 || int(id) >= tok.VocabSize() {
				return bad("prompt", "there is no token %d; ids are 0 to %d", id, tok.VocabSize()-1)
			}
		}
		q.prompts = append(q.prompts, append([]int32{tok.EOS()}, p...))
	}
	if len(q.prompts) == 0 {
		return bad("prompt", "is an empty list")
	}
	return nil
}

func (s *Server) checkLimits(q *completionRequest) error {
	if n := len(q.prompts); n > cap(s.jobs) {
		return bad("prompt", "%d prompts are more than the %d that this server takes at once", n, cap(s.jobs))
	}
	if q.Stream && len(q.prompts) > 1 {
		return bad("stream", "a stream has one prompt, not %d", len(q.prompts))
	}
	if q.Stream && (q.Echo || q.Logprobs != nil) {
		return bad("stream", "a stream has neither echo nor logprobs")
	}
	for _, p := range q.prompts {
		if len(p)+*q.MaxTokens > s.options.Context {
			return bad("max_tokens", "the prompt's %d tokens and %d new ones are more than the %d that this server takes", len(p), *q.MaxTokens, s.options.Context)
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
