package convert

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sambatrain/sambatrain/checkpoint/gguf"
)

// tokenizerJSON is the part of a tokenizer.json that llama.cpp needs.
type tokenizerJSON struct {
	Added []struct {
		ID      int    `json:"id"`
		Content string `json:"content"`
		Special bool   `json:"special"`
	} `json:"added_tokens"`
	PreTokenizer *preTokenizer `json:"pre_tokenizer"`
	Model        struct {
		Type         string            `json:"type"`
		Vocab        json.RawMessage   `json:"vocab"`
		Merges       []json.RawMessage `json:"merges"`
		ByteFallback bool              `json:"byte_fallback"`
	} `json:"model"`
}

type preTokenizer struct {
	Type     string         `json:"type"`
	Parts    []preTokenizer `json:"pretokenizers"`
	UseRegex *bool          `json:"use_regex"` // of ByteLevel; the default is true
	Pattern  struct {
		Regex string `json:"Regex"`
	} `json:"pattern"`
}

// preTypes maps expressions that split text into words to llama.cpp's names for them.
var preTypes = map[string]string{
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`: "llama-bpe",
	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`:      "qwen2",
}

// The types of llama.cpp's tokens.
const (
	tokenNormal  = 1
	tokenControl = 3
	tokenUser    = 4
	tokenUnused  = 5
)

// ggufTokenizer describes the run's tokenizer in llama.cpp's keys, based on the tokenizer.model or
// tokenizer.json that it exports. A text begins with the end-of-text token, as rows do in training.
func ggufTokenizer(s *Source) ([]gguf.Pair, error) {
	files := s.Tokenizer.ExportFiles()
	if raw, ok := files["tokenizer.model"]; ok {
		return ggufSentencePiece(s, raw)
	}
	text, ok := files["tokenizer.json"]
	if !ok {
		return nil, fmt.Errorf("%s has no tokenizer.json to describe it by", s.Tokenizer.Name())
	}
	var t tokenizerJSON
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("tokenizer.json: %w", err)
	}
	if t.Model.Type != "BPE" {
		return nil, fmt.Errorf("a tokenizer.json of type %s can't be written; only byte-level BPE, or a tokenizer.model, can", t.Model.Type)
	}
	pre, err := t.preType()
	if err != nil {
		return nil, err
	}
	tokens, types, err := t.tokens(s.Model.VocabSize)
	if err != nil {
		return nil, err
	}
	merges, err := t.merges()
	if err != nil {
		return nil, err
	}
	eos := uint32(s.Tokenizer.EOS())
	return []gguf.Pair{
		{Key: "tokenizer.ggml.model", Value: "gpt2"}, {Key: "tokenizer.ggml.pre", Value: pre},
		{Key: "tokenizer.ggml.tokens", Value: tokens}, {Key: "tokenizer.ggml.token_type", Value: types},
		{Key: "tokenizer.ggml.merges", Value: merges},
		{Key: "tokenizer.ggml.bos_token_id", Value: eos}, {Key: "tokenizer.ggml.eos_token_id", Value: eos},
		{Key: "tokenizer.ggml.add_bos_token", Value: true}, {Key: "tokenizer.ggml.add_eos_token", Value: false},
	}, nil
}

// preType returns llama.cpp's name for how the tokenizer splits text into words.
func (t tokenizerJSON) preType() (string, error) {
	notByteLevel := errors.New("it is not a byte-level BPE; of others, only a tokenizer.model can be written")
	if t.PreTokenizer == nil || t.Model.ByteFallback {
		return "", notByteLevel
	}
	parts := []preTokenizer{*t.PreTokenizer}
	if t.PreTokenizer.Type == "Sequence" {
		parts = t.PreTokenizer.Parts
	}
	last := parts[max(0, len(parts)-1):]
	if len(last) == 0 || last[0].Type != "ByteLevel" {
		return "", notByteLevel
	}
	regex := last[0].UseRegex == nil || *last[0].UseRegex
	switch {
	case len(parts) == 1 && regex, len(parts) == 1 && len(t.Model.Merges) == 0:
		// Without merges every byte is a token, wherever words begin.
		return "gpt-2", nil
	case len(parts) == 2 && !regex && parts[0].Type == "Split" && preTypes[parts[0].Pattern.Regex] != "":
		return preTypes[parts[0].Pattern.Regex], nil
	}
	return "", errors.New("llama.cpp has no name for how it cuts text into words")
}

// padText is the text of an id without one, such as those that pad the vocabulary to a multiple.
func padText(id int) string { return fmt.Sprintf("[PAD%d]", id) }

// tokens returns the texts of all n ids, and their types.
func (t tokenizerJSON) tokens(n int) (tokens []string, types []int32, err error) {
	var vocab map[string]int
	if err := json.Unmarshal(t.Model.Vocab, &vocab); err != nil {
		return nil, nil, fmt.Errorf("tokenizer.json: vocab: %w", err)
	}
	tokens, types = make([]string, n), make([]int32, n)
	for i := range n {
		tokens[i], types[i] = padText(i), tokenUnused
	}
	put := func(text string, id int, kind int32) {
		if id < 0 || id >= n {
			err = fmt.Errorf("tokenizer.json: token %q has id %d of %d", text, id, n)
			return
		}
		tokens[id], types[id] = text, kind
	}
	for text, id := range vocab {
		put(text, id, tokenNormal)
	}
	for _, a := range t.Added {
		kind := int32(tokenUser)
		if a.Special {
			kind = tokenControl
		}
		put(a.Content, a.ID, kind)
	}
	return tokens, types, err
}

// merges returns pairs separated by a space, from the older as well as the newer file format.
func (t tokenizerJSON) merges() ([]string, error) {
	list := make([]string, len(t.Model.Merges))
	for i, raw := range t.Model.Merges {
		var pair [2]string
		if json.Unmarshal(raw, &list[i]) == nil {
			continue
		}
		if err := json.Unmarshal(raw, &pair); err != nil {
			return nil, fmt.Errorf("tokenizer.json: merges[%d]: %w", i, err)
		}
		list[i] = pair[0] + " " + pair[1]
	}
	return list, nil
}
