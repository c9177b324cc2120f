package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Names of Hugging Face's files, and of SentencePiece's.
const (
	tokenizerJSON   = "tokenizer.json"
	tokenizerModel  = "tokenizer.model"
	tokenizerConfig = "tokenizer_config.json"
)

// hfTokenizer is the content of a tokenizer.json. Parts that only add tokens around a text
// (post_processor) or shorten it (truncation, padding) are not read: documents are split by this
// package.
type hfTokenizer struct {
	AddedTokens  []hfAddedToken `json:"added_tokens"`
	Normalizer   *hfPart        `json:"normalizer"`
	PreTokenizer *hfPart        `json:"pre_tokenizer"`
	Model        hfModel        `json:"model"`
}

type hfAddedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	Special    bool   `json:"special"`
	Normalized bool   `json:"normalized"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
}

type hfModel struct {
	Type                    string           `json:"type"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int32 `json:"vocab"`
	Merges                  []hfMerge        `json:"merges"`
}

// hfMerge is a pair, written "a b" or ["a", "b"].
type hfMerge [2]string

func (m *hfMerge) UnmarshalJSON(raw []byte) error {
	if raw[0] == '[' {
		return json.Unmarshal(raw, (*[2]string)(m))
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return err
	}
	left, right, ok := strings.Cut(text, " ")
	if !ok || strings.Contains(right, " ") {
		return fmt.Errorf("merge %q is not two pieces", text)
	}
	*m = hfMerge{left, right}
	return nil
}

// openHuggingFace reads a tokenizer.json, and the end-of-text token from the tokenizer_config.json
// next to it.
func openHuggingFace(path string) (fileTokenizer, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	configPath := filepath.Join(filepath.Dir(path), tokenizerConfig)
	config, err := os.ReadFile(configPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	t, err := newHuggingFace(raw, config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

func newHuggingFace(raw, config []byte) (*bpe, error) {
	var h hfTokenizer
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, badJSON(err)
	}
	if err := h.Model.check(); err != nil {
		return nil, err
	}
	t := &bpe{vocabulary: vocabulary{exports: map[string][]byte{tokenizerJSON: raw}, unknown: none}, split: keepWhole}
	if config != nil {
		t.exports[tokenizerConfig] = config
	}
	byteLevel, err := t.preTokenizer(h.PreTokenizer)
	if err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	if t.normalize, err = normalizer(h.Normalizer, t.normalize); err != nil {
		return nil, fmt.Errorf("normalizer: %w", err)
	}
	if err := t.model(h.Model, byteLevel); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if h.PreTokenizer == nil && t.chars != nil && !anyCrosses(h.Model.Vocab) {
		t.split = splitSpaceRuns
	}
	if err := t.addTokens(h.AddedTokens); err != nil {
		return nil, fmt.Errorf("added_tokens: %w", err)
	}
	t.internal = int32(len(t.pieces))
	t.info.VocabSize = len(t.pieces)
	if t.info.EOS, err = endOfTextID(h, config); err != nil {
		return nil, err
	}
	t.info.Fingerprint = fingerprintOf(raw, t.info.EOS)
	return t, nil
}

func anyCrosses(vocab map[string]int32) bool {
	for piece := range vocab {
		if crossesSpaces(piece) {
			return true
		}
	}
	return false
}

// check rejects models that this package doesn't support.
func (m hfModel) check() error {
	given := func(s *string) bool { return s != nil && *s != "" }
	switch {
	case m.Type != "BPE":
		return fmt.Errorf("model: type %q is not supported: only BPE is", m.Type)
	case m.Dropout != nil && *m.Dropout != 0:
		return fmt.Errorf("model: dropout %v is not supported: set it to null", *m.Dropout)
	case given(m.ContinuingSubwordPrefix):
		return fmt.Errorf("model: continuing_subword_prefix %q is not supported", *m.ContinuingSubwordPrefix)
	case given(m.EndOfWordSuffix):
		return fmt.Errorf("model: end_of_word_suffix %q is not supported", *m.EndOfWordSuffix)
	case len(m.Vocab) == 0:
		return errors.New("model: vocab is empty")
	}
	return nil
}

// maxID limits the ids of a vocabulary of n tokens, which may have gaps: memory grows with the
// largest id.
func maxID(n int) int { return 2*n + 1<<16 }

// model fills in pieces, symbols and merges.
func (t *bpe) model(m hfModel, byteLevel bool) error {
	top := int32(-1)
	for piece, id := range m.Vocab {
		if id < 0 || int(id) > maxID(len(m.Vocab)) {
			return fmt.Errorf("piece %q has id %d", piece, id)
		}
		top = max(top, id)
	}
	t.pieces = make([][]byte, top+1)
	textOf := characterText
	if byteLevel {
		textOf = byteLevelText()
	}
	for piece, id := range m.Vocab {
		text, err := textOf(piece)
		if err != nil && byteLevel && !isAddedName(piece) {
			return err
		}
		t.pieces[id] = text
	}
	if m.IgnoreMerges {
		t.whole = make(map[string]int32, len(m.Vocab))
		for piece, id := range m.Vocab {
			if byteLevel {
				t.whole[string(t.pieces[id])] = id
			} else {
				t.whole[piece] = id
			}
		}
	}
	if err := t.alphabet(m, byteLevel); err != nil {
		return err
	}
	t.merges = newPairTable(len(m.Merges))
	for rank, pair := range m.Merges {
		var ids [3]int32
		for i, piece := range []string{pair[0], pair[1], pair[0] + pair[1]} {
			id, ok := m.Vocab[piece]
			if !ok {
				return fmt.Errorf("merge %d, %q with %q: vocab has no %q", rank, pair[0], pair[1], piece)
			}
			ids[i] = id
		}
		t.merges.set(ids[0], ids[1], merged{uint32(rank), ids[2]})
	}
	return nil
}

// isAddedName allows a vocabulary to contain the names of special tokens, which are not written in
// bytes.
func isAddedName(piece string) bool {
	return strings.HasPrefix(piece, "<") && strings.HasSuffix(piece, ">")
}

// alphabet sets the initial symbols of a word.
func (t *bpe) alphabet(m hfModel, byteLevel bool) error {
	for b := range t.bytes {
		t.bytes[b] = none
	}
	if byteLevel {
		for b, char := range byteLevelAlphabet() {
			id, ok := m.Vocab[string(char)]
			if !ok {
				return fmt.Errorf("vocab has no piece for byte 0x%02X, %q", b, char)
			}
			t.bytes[b] = id
		}
		return nil
	}
	t.chars = map[rune]int32{}
	for piece, id := range m.Vocab {
		if r, size := utf8.DecodeRuneInString(piece); size == len(piece) {
			t.chars[r] = id
		}
	}
	if m.ByteFallback {
		for b := range t.bytes {
			if id, ok := m.Vocab[fmt.Sprintf("<0x%02X>", b)]; ok {
				t.bytes[b] = id
			}
		}
	}
	if m.UnkToken != nil {
		id, ok := m.Vocab[*m.UnkToken]
		if !ok {
			return fmt.Errorf("vocab has no unk_token %q", *m.UnkToken)
		}
		t.unknown, t.fuse = id, m.FuseUnk
		t.pieces[id] = nil
	} else if slices.Contains(t.bytes[:], none) {
		return errors.New("it has neither an unk_token nor a piece for every byte, so some text would have no ids")
	}
	return nil
}

// characterText returns the text of a piece in a vocabulary of characters.
func characterText(piece string) ([]byte, error) {
	var b byte
	if n, err := fmt.Sscanf(piece, "<0x%02X>", &b); err == nil && n == 1 && len(piece) == 6 {
		return []byte{b}, nil
	}
	return []byte(strings.ReplaceAll(piece, metaspace, " ")), nil
}

// byteLevelText is characterText for pieces in GPT-2's alphabet of bytes.
func byteLevelText() func(piece string) ([]byte, error) {
	byteOf := map[rune]byte{}
	for b, char := range byteLevelAlphabet() {
		byteOf[char] = byte(b)
	}
	return func(piece string) ([]byte, error) {
		text := make([]byte, 0, len(piece))
		for _, char := range piece {
			b, ok := byteOf[char]
			if !ok {
				return nil, fmt.Errorf("piece %q has %q, which stands for no byte", piece, char)
			}
			text = append(text, b)
		}
		return text, nil
	}
}

// addTokens adds the added tokens. Special ones are never found in a text, see Tokenizer.Encode.
func (t *bpe) addTokens(tokens []hfAddedToken) error {
	most := maxID(len(t.pieces) + len(tokens))
	for _, a := range tokens {
		if a.ID < 0 || int(a.ID) > most || a.Content == "" {
			return fmt.Errorf("token %q has id %d", a.Content, a.ID)
		}
		for int(a.ID) >= len(t.pieces) {
			t.pieces = append(t.pieces, nil)
		}
		t.pieces[a.ID] = nil
		if a.Special {
			if t.whole[a.Content] == a.ID {
				delete(t.whole, a.Content) // a word that spells its name
			}
			continue
		}
		if a.SingleWord || a.LStrip || a.RStrip {
			return fmt.Errorf("token %q: single_word, lstrip and rstrip are not supported on a token that is not special", a.Content)
		}
		t.pieces[a.ID] = []byte(a.Content)
		if !a.Normalized || t.normalize == nil {
			t.before.add([]byte(a.Content), a.ID)
		} else {
			text := t.normalize(nil, []byte(a.Content), false)
			if len(text) == 0 {
				return fmt.Errorf("token %q: the normalizer leaves nothing of it", a.Content)
			}
			t.after.add(text, a.ID)
		}
	}
	return nil
}

// endOfTextID finds the end-of-text token: the one that tokenizer_config.json names, or a token
// with a well-known name.
func endOfTextID(h hfTokenizer, config []byte) (int32, error) {
	find := func(name string) (int32, bool) {
		for _, a := range h.AddedTokens {
			if a.Content == name && a.Special {
				return a.ID, true
			}
		}
		return 0, false
	}
	if config != nil {
		var c struct {
			EOS json.RawMessage `json:"eos_token"`
		}
		if err := json.Unmarshal(config, &c); err != nil {
			return 0, fmt.Errorf("%s: %w", tokenizerConfig, badJSON(err))
		}
		var name string
		if json.Unmarshal(c.EOS, &name) != nil {
			var token struct {
				Content string `json:"content"`
			}
			if json.Unmarshal(c.EOS, &token) == nil {
				name = token.Content
			}
		}
		if name != "" {
			if id, ok := find(name); ok {
				return id, nil
			}
			return 0, fmt.Errorf("%s: eos_token %q is not a special added token of %s", tokenizerConfig, name, tokenizerJSON)
		}
	}
	for _, name := range []string{endOfText, "<|end_of_text|>", "</s>", "<eos>"} {
		if id, ok := find(name); ok {
			return id, nil
		}
	}
	return 0, fmt.Errorf("no end-of-text token: put a %s with eos_token next to it", tokenizerConfig)
}
