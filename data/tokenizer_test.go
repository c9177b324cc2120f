package data

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
)

func byteTok(t testing.TB) Tokenizer {
	t.Helper()
	tok, err := NewTokenizer("bytes")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestBytesRoundTrip(t *testing.T) {
	tok := byteTok(t)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, text := range [][]byte{nil, []byte("Go, 世界 🙂"), []byte("broken \xff\xfe UTF-8"), []byte("<|endoftext|>"), all} {
		ids := mustEncode(t, tok, []int32{7}, text)
		if len(ids) != 1+len(text) || ids[0] != 7 {
			t.Fatalf("%q: Encode does not append one id a byte: %v", text, ids)
		}
		for i, b := range text {
			if ids[1+i] != int32(b) {
				t.Fatalf("%q: byte %d is id %d, want %d", text, i, ids[1+i], b)
			}
		}
		got := tok.Decode([]byte("x"), append(ids[1:], tok.EOS()))
		if !bytes.Equal(got, append([]byte("x"), text...)) {
			t.Errorf("%q comes back as %q", text, got)
		}
		if n := TextBytes(tok, append(ids[1:], tok.EOS())); n != int64(len(text)) {
			t.Errorf("%q: TextBytes is %d, want %d", text, n, len(text))
		}
	}
	if tok.EOS() != 256 || tok.VocabSize() != 257 || tok.Name() != "bytes" {
		t.Errorf("EOS %d, VocabSize %d, Name %q", tok.EOS(), tok.VocabSize(), tok.Name())
	}
	// Existing shards contain it: a change would make them be refused.
	if got, want := tok.Fingerprint(), "sha256:929db798f82c4668f7272a58c2412484"; got != want {
		t.Errorf("fingerprint is %s, want %s", got, want)
	}
}

func TestBitsPerByte(t *testing.T) {
	// 8 targets with a uniform choice among 256 each, one of them an end of text: 8 bits each over
	// 7 bytes.
	if got, want := BitsPerByte(8*math.Log(256), 7), 64.0/7; !(math.Abs(got-want) <= 1e-12) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestExportFiles(t *testing.T) {
	files := byteTok(t).ExportFiles()
	var tokenizer struct {
		AddedTokens []struct {
			ID      int    `json:"id"`
			Content string `json:"content"`
			Special bool   `json:"special"`
		} `json:"added_tokens"`
		PreTokenizer struct {
			Type           string `json:"type"`
			AddPrefixSpace *bool  `json:"add_prefix_space"`
			UseRegex       *bool  `json:"use_regex"`
		} `json:"pre_tokenizer"`
		Decoder struct {
			Type string `json:"type"`
		} `json:"decoder"`
		Model struct {
			Type   string         `json:"type"`
			Vocab  map[string]int `json:"vocab"`
			Merges []string       `json:"merges"`
		} `json:"model"`
	}
	if err := json.Unmarshal(files["tokenizer.json"], &tokenizer); err != nil {
		t.Fatal(err)
	}
	if a := tokenizer.AddedTokens; len(a) != 1 || a[0].ID != 256 || a[0].Content != "<|endoftext|>" || !a[0].Special {
		t.Errorf("added tokens are %+v", a)
	}
	if p := tokenizer.PreTokenizer; p.Type != "ByteLevel" || p.AddPrefixSpace == nil || *p.AddPrefixSpace || p.UseRegex == nil || *p.UseRegex {
		t.Errorf("pre-tokenizer is %+v", p)
	}
	if tokenizer.Decoder.Type != "ByteLevel" || tokenizer.Model.Type != "BPE" || tokenizer.Model.Merges == nil || len(tokenizer.Model.Merges) != 0 {
		t.Errorf("decoder %+v, model %s with merges %v", tokenizer.Decoder, tokenizer.Model.Type, tokenizer.Model.Merges)
	}
	if n := len(tokenizer.Model.Vocab); n != 257 {
		t.Errorf("vocabulary has %d entries, want 257", n)
	}
	ids := map[int]bool{}
	for _, id := range tokenizer.Model.Vocab {
		ids[id] = true
	}
	for id := range 257 {
		if !ids[id] {
			t.Errorf("no entry has id %d", id)
		}
	}
	// Entries of GPT-2's vocabulary, from its published vocab.json and encoder.
	for char, b := range map[string]int{
		"!": '!', "A": 'A', "z": 'z', "~": '~', "Ġ": ' ', "Ċ": '\n', "ĉ": '\t', "č": '\r', "Ā": 0x00, "ġ": 0x7f,
		"Ģ": 0x80, "ł": 0xa0, "¡": 0xa1, "¬": 0xac, "Ń": 0xad, "®": 0xae, "é": 0xe9, "ÿ": 0xff, "<|endoftext|>": 256,
	} {
		if got, ok := tokenizer.Model.Vocab[char]; !ok || got != b {
			t.Errorf("entry %q has id %d (%v), want %d", char, got, ok, b)
		}
	}

	var config struct {
		EOS   string `json:"eos_token"`
		Class string `json:"tokenizer_class"`
	}
	if err := json.Unmarshal(files["tokenizer_config.json"], &config); err != nil {
		t.Fatal(err)
	}
	if config.EOS != "<|endoftext|>" || config.Class != "PreTrainedTokenizerFast" {
		t.Errorf("tokenizer_config.json is %+v", config)
	}
}
