package data

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
)

// endOfText is the name of the end-of-text token in exported files.
const endOfText = "<|endoftext|>"

// byteTokenizer maps each byte to the id of its value. It accepts any bytes, valid UTF-8 or not.
type byteTokenizer struct{}

func (byteTokenizer) Name() string   { return "bytes" }
func (byteTokenizer) VocabSize() int { return 257 }
func (byteTokenizer) EOS() int32     { return 256 }

func (byteTokenizer) Encode(dst []int32, text []byte) ([]int32, error) {
	for _, b := range text {
		dst = append(dst, int32(b))
	}
	return dst, nil
}

func (byteTokenizer) Decode(dst []byte, ids []int32) []byte {
	for _, id := range ids {
		if id >= 0 && id < 256 {
			dst = append(dst, byte(id))
		}
	}
	return dst
}

func (byteTokenizer) TokenBytes(id int32) int {
	if id >= 0 && id < 256 {
		return 1
	}
	return 0
}

func (byteTokenizer) Fingerprint() string {
	sum := sha256.Sum256([]byte("ids 0..255 are the bytes, 256 is " + endOfText))
	return "sha256:" + hex.EncodeToString(sum[:16])
}

// ExportFiles describes the tokenizer as a byte-level BPE without merges. Its pre-tokenizer maps each byte to
// one printable character, so the vocabulary maps that character back to the byte's value.
// The Hugging Face libraries read the text "<|endoftext|>" as id 256, Encode reads it as 13 bytes.
func (t byteTokenizer) ExportFiles() map[string][]byte {
	vocab := make(map[string]int, t.VocabSize())
	for b, char := range byteLevelAlphabet() {
		vocab[string(char)] = b
	}
	vocab[endOfText] = int(t.EOS())
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}
	return byteLevelFiles(vocab, []string{}, int(t.EOS()), byteLevel, byteLevel)
}

// byteLevelFiles returns the files of a byte-level BPE whose end-of-text token has the id eos.
func byteLevelFiles(vocab map[string]int, merges []string, eos int, preTokenizer, decoder any) map[string][]byte {
	tokenizer := tokenizerFile(map[string]any{
		"added_tokens":  []any{specialToken(eos, endOfText)},
		"pre_tokenizer": preTokenizer,
		"decoder":       decoder,
	}, map[string]any{"unk_token": nil, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": merges})
	config := map[string]any{
		"tokenizer_class":              "PreTrainedTokenizerFast",
		"eos_token":                    endOfText,
		"add_prefix_space":             false,
		"clean_up_tokenization_spaces": false,
	}
	return map[string][]byte{tokenizerJSON: tokenizer, tokenizerConfig: mustJSON(config)}
}

// tokenizerFile returns a tokenizer.json of a BPE model; parts and model contain what is neither
// null nor the same in all of them.
func tokenizerFile(parts, model map[string]any) []byte {
	file := map[string]any{"version": "1.0", "truncation": nil, "padding": nil, "normalizer": nil, "pre_tokenizer": nil, "post_processor": nil}
	maps.Copy(file, parts)
	file["model"] = map[string]any{"type": "BPE", "dropout": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil, "ignore_merges": false}
	maps.Copy(file["model"].(map[string]any), model)
	return mustJSON(file)
}

func specialToken(id int, content string) map[string]any {
	return map[string]any{"id": id, "content": content, "special": true,
		"single_word": false, "lstrip": false, "rstrip": false, "normalized": false}
}

// byteLevelAlphabet is the table made by GPT-2's bytes_to_unicode: bytes that are printable in
// Latin-1 stand for themselves, the others for the characters from U+0100 on, in order.
func byteLevelAlphabet() [256]rune {
	var chars [256]rune
	next := rune(0x100)
	for b := range chars {
		printable := b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae
		if printable {
			chars[b] = rune(b)
		} else {
			chars[b] = next
			next++
		}
	}
	return chars
}

// mustJSON encodes a value that consists of structs, maps, slices and scalars, so it cannot fail.
func mustJSON(v any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		panic(fmt.Sprintf("data: %v", err))
	}
	return out.Bytes()
}
