package serve

import "net/http"

// tokenizerInfo says what a tokenizer's special tokens are called.
func (s *Server) tokenizerInfo(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{
		"vocab_size": s.model.Tokenizer.VocabSize(), "bos_token": nil, "eos_token": endOfText, "pad_token": nil,
	})
}

// tokenize gives the ids of a text. As in a completion's prompt, they stand behind an end of
// text, but where add_special_tokens is false. The end of text's name alone is its own id.
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
	tok, ids := s.model.Tokenizer, []int32{}
	if q.Special == nil || *q.Special {
		ids = append(ids, tok.EOS())
	}
	if *q.Prompt == endOfText {
		ids = append(ids, tok.EOS())
	} else {
		var err error
		if ids, err = tok.Encode(ids, []byte(*q.Prompt)); err != nil {
			fail(w, err)
			return
		}
	}
	answer(w, map[string]any{"count": len(ids), "max_model_len": s.options.Context, "tokens": ids})
}

// detokenize gives the text of ids.
func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	q := struct {
		Model  string  `json:"model"`
		Tokens []int32 `json:"tokens"`
	}{}
	if err := s.decode(w, r, &q, &q.Model); err != nil {
		fail(w, err)
		return
	}
	if err := checkTokens("tokens", q.Tokens, s.model.Tokenizer); err != nil {
		fail(w, err)
		return
	}
	answer(w, map[string]any{"prompt": valid(s.model.Tokenizer.Decode(nil, q.Tokens))})
}
