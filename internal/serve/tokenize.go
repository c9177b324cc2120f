package serve

import (
	"encoding/json"
	"net/http"
)

// tokenizerInfo returns the names of a tokenizer's special tokens.
func (s *Server) tokenizerInfo(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"vocab_size": s.model.Tokenizer.VocabSize(), "bos_token": nil, "eos_token": endOfText, "pad_token": nil,
	})
}

// tokenize returns the ids of a text. As in a completion's prompt, they come after an end of text,
// which the text may name; if add_special_tokens is false, only if it does.
func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	q := struct {
		Model   string  `json:"model"`
		Prompt  *string `json:"prompt"`
		Special *bool   `json:"add_special_tokens"`
	}{}
	if err := s.decode(w, r, &q, &q.Model); err != nil {
		fail(w, err)
		return
	}
	if q.Prompt == nil {
		fail(w, bad("prompt", "must be a string"))
		return
	}
	p, err := textPrompt(s.model.Tokenizer, *q.Prompt)
	if err != nil {
		fail(w, err)
		return
	}
	ids := p.ids
	if q.Special != nil && !*q.Special {
		ids = p.given()
	}
	answer(w, map[string]any{"count": len(ids), "max_model_len": s.options.Context, "tokens": ids})
}

// detokenize returns the text of ids, with an end of text by its name.
func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	q := struct {
		Model  string          `json:"model"`
		Tokens json.RawMessage `json:"tokens"`
	}{}
	if err := s.decode(w, r, &q, &q.Model); err != nil {
		fail(w, err)
		return
	}
	ids, err := listOf[int32](q.Tokens)
	if err != nil {
		fail(w, bad("tokens", "must be a list of token ids"))
		return
	}
	if err := checkTokens("tokens", ids, s.model.Tokenizer); err != nil {
		fail(w, err)
		return
	}
	answer(w, map[string]any{"prompt": valid(spelt(s.model.Tokenizer, ids))})
}
