package convert

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/checkpoint/gguf"
	"github.com/sambatrain/sambatrain/data"
	"github.com/sambatrain/sambatrain/data/sentencepiece"
	"github.com/sambatrain/sambatrain/layers"
)

// described is a tokenizer that is given by its exported files.
type described struct {
	data.Tokenizer
	files map[string][]byte
}

func (d described) EOS() int32                     { return 2 }
func (d described) Name() string                   { return "described" }
func (d described) ExportFiles() map[string][]byte { return d.files }

func tokenizerOf(name, text string, vocab int) *Source {
	return &Source{Model: &layers.Model{VocabSize: vocab}, Tokenizer: described{files: map[string][]byte{name: []byte(text)}}}
}

func values(pairs []gguf.Pair) map[string]any {
	m := map[string]any{}
	for _, p := range pairs {
		m[strings.TrimPrefix(p.Key, "tokenizer.ggml.")] = p.Value
	}
	return m
}

// byteLevel returns a tokenizer.json with a pre-tokenizer and merges.
func byteLevel(pre, merges string) string {
	return `{"added_tokens": [{"id": 2, "content": "<end>", "special": true}, {"id": 4, "content": "<user>"}], "pre_tokenizer": ` + pre +
		`, "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 3}, "merges": ` + merges + `}}`
}

func TestTokenizers(t *testing.T) {
	const level = `{"type": "ByteLevel", "use_regex": false}`
	split := func(regex string) string {
		return `{"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "` + strings.ReplaceAll(regex, `\`, `\\`) + `"}}, ` + level + `]}`
	}
	var llama3 string
	for regex, name := range preTypes {
		if name == "llama-bpe" {
			llama3 = regex
		}
	}
	for _, c := range []struct{ text, pre, want string }{
		{byteLevel(`{"type": "ByteLevel"}`, `["a b"]`), "gpt-2", ""},
		{byteLevel(level, `[]`), "gpt-2", ""},
		{byteLevel(split(llama3), `[["a", "b"]]`), "llama-bpe", ""},
		{byteLevel(level, `["a b"]`), "", "llama.cpp has no name for how it cuts text into words"},
		{byteLevel(split("x+"), `["a b"]`), "", "no name for how it cuts"},
		{byteLevel(`{"type": "Metaspace"}`, `[]`), "", "it is not a byte-level BPE"},
		{byteLevel(`null`, `[]`), "", "it is not a byte-level BPE"},
		{byteLevel(`{"type": "ByteLevel"}`, `[3]`), "", "merges[0]"},
		{`{"model": {"type": "Unigram"}}`, "", "a tokenizer.json of type Unigram can't be written"},
	} {
		pairs, err := ggufTokenizer(tokenizerOf("tokenizer.json", c.text, 6))
		if c.want != "" {
			wantError(t, err, c.want)
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		got := values(pairs)
		if got["pre"] != c.pre || fmt.Sprint(got["tokens"]) != "[a b <end> ab <user> [PAD5]]" || fmt.Sprint(got["token_type"]) != "[1 1 3 1 4 5]" ||
			got["bos_token_id"] != uint32(2) || got["eos_token_id"] != uint32(2) {
			t.Errorf("%v", got)
		}
		if merges := got["merges"].([]string); len(merges) > 0 && merges[0] != "a b" {
			t.Errorf("merges %q", merges)
		}
	}
	_, err := ggufTokenizer(tokenizerOf("tokenizer.json", byteLevel(level, `[]`), 3))
	wantError(t, err, "has id ", " of 3")
	_, err = ggufTokenizer(tokenizerOf("vocab.txt", "", 3))
	wantError(t, err, "described has no tokenizer.json to describe it by")
}

func TestSentencePiece(t *testing.T) {
	model := func(change func(m *sentencepiece.Model)) *Source {
		m := &sentencepiece.Model{Type: sentencepiece.BPE, EOS: 2, DummyPrefix: true, EscapeSpaces: true, Pieces: []sentencepiece.Piece{
			{Text: "<unk>", Kind: sentencepiece.Unknown}, {Text: "<s>", Kind: sentencepiece.Control},
			{Text: "</s>", Kind: sentencepiece.Control}, {Text: "▁a", Score: -1, Kind: sentencepiece.Normal},
		}}
		change(m)
		return tokenizerOf("tokenizer.model", string(m.Marshal()), 5)
	}
	pairs, err := ggufTokenizer(model(func(*sentencepiece.Model) {}))
	if err != nil {
		t.Fatal(err)
	}
	got := values(pairs)
	if got["model"] != "llama" || fmt.Sprint(got["tokens"]) != "[<unk> <s> </s> ▁a [PAD4]]" || fmt.Sprint(got["token_type"]) != "[2 3 3 1 5]" ||
		fmt.Sprint(got["scores"]) != "[0 0 0 -1 -10000]" || got["add_space_prefix"] != true || got["unknown_token_id"] != uint32(0) {
		t.Errorf("%v", got)
	}
	wantError(t, checkHFTokenizer(model(func(*sentencepiece.Model) {})), "Transformers gives other ids than tokenizer described", "--format safetensors")
	for want, change := range map[string]func(m *sentencepiece.Model){
		"it normalizes text":                         func(m *sentencepiece.Model) { m.CharsMap = []byte("x") },
		"normalizer_spec":                            func(m *sentencepiece.Model) { m.RemoveSpaces = true },
		"a tokenizer.model of type unigram can't be": func(m *sentencepiece.Model) { m.Type = sentencepiece.Unigram },
		"it has user-defined symbols":                func(m *sentencepiece.Model) { m.Pieces[3].Kind = sentencepiece.UserDefined },
		"its spaces follow words (treat_whitespace":  func(m *sentencepiece.Model) { m.WhitespaceSuffix = true },
	} {
		_, err := ggufTokenizer(model(change))
		wantError(t, err, want)
	}
	_, err = ggufTokenizer(tokenizerOf("tokenizer.model", "\xff", 5))
	wantError(t, err, "tokenizer.model: ")
}
