package data

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// trained returns a small tokenizer of text in its own folder, and that folder.
func trained(t testing.TB, vocabSize int, texts ...string) (Tokenizer, string) {
	t.Helper()
	files := map[string]string{}
	for i, text := range texts {
		files[fmt.Sprintf("%d.txt", i)] = text
	}
	written, err := TrainTokenizer(context.Background(), TextConfig{Path: writeFiles(t, files), JSONLField: "text"}, vocabSize, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range written {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tok, err := NewTokenizer(filepath.Join(dir, tokenizerJSON))
	if err != nil {
		t.Fatal(err)
	}
	return tok, dir
}

const someText = "the cat sat on the mat, the hat and the bat. That is 2024's 'text': it isn't long, 日本語もある。\n\n\tfor i := range 10 {}\n"

// TestTokenizerFolder: the folder of a tokenizer is told apart from its file.
func TestTokenizerFolder(t *testing.T) {
	_, dir := trained(t, 270, someText)
	_, err := NewTokenizer(dir)
	checkError(t, err, dir, `no tokenizer "DIR": this is a folder, use `+filepath.Join("DIR", tokenizerJSON))
}

func TestTrainTokenizer(t *testing.T) {
	// Word counts: low 5, lower 2, newest 6, widest 3. The example is from Sennrich, Haddow and
	// Birch, 2016.
	text := strings.TrimSpace(strings.Repeat("low\n", 5) + strings.Repeat("lower\n", 2) + strings.Repeat("newest\n", 6) + strings.Repeat("widest\n", 3))
	tok, dir := trained(t, 256+4+1, text)
	var file hfTokenizer
	raw, err := os.ReadFile(filepath.Join(dir, tokenizerJSON))
	if err == nil {
		err = json.Unmarshal(raw, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	// e+s and s+t both occur 9 times; the lower id goes first.
	if got, want := fmt.Sprint(file.Model.Merges), "[[e s] [es t] [l o] [lo w]]"; got != want {
		t.Errorf("merges are %s, want %s", got, want)
	}
	if tok.VocabSize() != 261 || tok.EOS() != 260 {
		t.Errorf("VocabSize %d, EOS %d", tok.VocabSize(), tok.EOS())
	}
	if got, want := mustEncode(t, tok, nil, []byte("lowest")), []int32{259, 257}; !slices.Equal(got, want) {
		t.Errorf("lowest is %v, want %v", got, want)
	}

	// No pair occurs twice: training ends early.
	if tok, _ := trained(t, 1000, "abcdefg"); tok.VocabSize() != 257 {
		t.Errorf("VocabSize %d, want 257", tok.VocabSize())
	}
	for _, test := range []struct {
		vocab int
		files map[string]string
		want  string
	}{
		{257, map[string]string{"a": "a"}, "vocab_size: must be 258 to 1048576, is 257"},
		{300, map[string]string{"a": ""}, "data.text: the files hold no text: point data.text.path at other text"},
		{300, map[string]string{"a.jsonl": `{"txt": ""}`}, `data.text: DIR/a.jsonl:1: no field "text" among ["txt"]: set data.text.jsonl_field`},
	} {
		folder := writeFiles(t, test.files)
		_, err := TrainTokenizer(context.Background(), TextConfig{Path: folder, JSONLField: "text"}, test.vocab, nil)
		checkError(t, err, folder, test.want)
	}
}

// TestTrainedRanks: encoding merges in the order of training, even if two pairs form the same
// piece.
func TestTrainedRanks(t *testing.T) {
	text := strings.Repeat("abc abcd bcd bc ab aab aaab aaaa aabc ", 20) + strings.Repeat(someText, 10)
	tok, dir := trained(t, 400, text)
	raw, _ := os.ReadFile(filepath.Join(dir, tokenizerJSON))
	var file hfTokenizer
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	rank := map[hfMerge]int{}
	for i, m := range file.Model.Merges {
		if _, ok := rank[m]; ok {
			t.Errorf("merge %v is there twice", m)
		}
		rank[m] = i
	}
	if len(file.Model.Vocab) != tok.VocabSize()-1 {
		t.Errorf("%d names, %d ids", len(file.Model.Vocab), tok.VocabSize())
	}
	// The slow way: one merge after the other, over the whole word.
	chars := byteLevelAlphabet()
	slow := func(word []byte) (ids []int32) {
		var parts []string
		for _, b := range word {
			parts = append(parts, string(chars[b]))
		}
		for {
			best := -1
			for i := 1; i < len(parts); i++ {
				if r, ok := rank[hfMerge{parts[i-1], parts[i]}]; ok && (best < 0 || r < rank[hfMerge{parts[best-1], parts[best]}]) {
					best = i
				}
			}
			if best < 0 {
				break
			}
			parts = slices.Replace(parts, best-1, best+1, parts[best-1]+parts[best])
		}
		for _, p := range parts {
			ids = append(ids, file.Model.Vocab[p])
		}
		return ids
	}
	split, err := splitPattern(patternLlama3, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{text, strings.Repeat("a", 97), "aabcdabcdbcdaaab"} {
		var want []int32
		split([]byte(text), true, func(word []byte) { want = append(want, slow(word)...) })
		if got := mustEncode(t, tok, nil, []byte(text)); !slices.Equal(got, want) {
			t.Errorf("%.40q: ids differ from those of the slow way", text)
		}
	}
}

func TestByteLevelRoundTrip(t *testing.T) {
	tok, _ := trained(t, 300, someText)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, text := range [][]byte{nil, []byte(someText), all, []byte("broken \xff\xfe UTF-8 \xe4\xb8"), []byte("<|endoftext|>"), []byte(strings.Repeat("x", 100000))} {
		ids := mustEncode(t, tok, nil, text)
		if slices.Contains(ids, tok.EOS()) {
			t.Errorf("%.40q has the end of text", text)
		}
		if got := tok.Decode(nil, append(ids, tok.EOS())); !bytes.Equal(got, text) {
			t.Errorf("%.40q comes back as %.40q", text, got)
		}
		if n := TextBytes(tok, append(ids, tok.EOS())); n != int64(len(text)) {
			t.Errorf("%.40q: TextBytes is %d, want %d", text, n, len(text))
		}
	}
}

// edited returns a valid tokenizer.json with one part, at a path of keys, replaced.
func edited(t *testing.T, value any, path ...string) []byte {
	t.Helper()
	tok, _ := trained(t, 270, someText)
	var file map[string]any
	if err := json.Unmarshal(tok.ExportFiles()[tokenizerJSON], &file); err != nil {
		t.Fatal(err)
	}
	at := file
	for _, key := range path[:len(path)-1] {
		at = at[key].(map[string]any)
	}
	at[path[len(path)-1]] = value
	return mustJSON(file)
}

func TestHuggingFaceRefuses(t *testing.T) {
	part := func(kv ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	byteLevel := part("type", "ByteLevel", "add_prefix_space", false)
	for _, test := range []struct {
		value any
		path  string
		want  string
	}{
		{"WordPiece", "model.type", `model: type "WordPiece" is not supported: only BPE is`},
		{0.1, "model.dropout", "model: dropout 0.1 is not supported: set it to null"},
		{"##", "model.continuing_subword_prefix", `model: continuing_subword_prefix "##" is not supported`},
		{"</w>", "model.end_of_word_suffix", `model: end_of_word_suffix "</w>" is not supported`},
		{part(), "model.vocab", "model: vocab is empty"},
		{[]string{"q z"}, "model.merges", `model: merge 0, "q" with "z": vocab has no "qz"`},
		{[]string{"qz"}, "model.merges", `bad JSON: merge "qz" is not two pieces`},
		{part("type", "BertPreTokenizer"), "pre_tokenizer", `pre_tokenizer: type "BertPreTokenizer" is not supported: there are ByteLevel, Digits, Metaspace, Split and Sequence`},
		{part("type", "Split", "pattern", part("Regex", "a"), "behavior", "MergedWithNext"), "pre_tokenizer", `pre_tokenizer: Split with behavior "MergedWithNext" and invert false is not supported`},
		{part("type", "Split", "pattern", part("Regex", "("), "behavior", "Isolated"), "pre_tokenizer", "pre_tokenizer: pattern \"(\": error parsing regexp: missing closing ) in `(`"},
		{part("type", "Sequence", "pretokenizers", []any{byteLevel, byteLevel}), "pre_tokenizer", "pre_tokenizer: a Sequence that continues after ByteLevel is not supported"},
		{part("type", "Sequence", "pretokenizers", []any{part("type", "Digits"), part("type", "ByteLevel")}), "pre_tokenizer", "pre_tokenizer: ByteLevel with add_prefix_space inside a Sequence is not supported"},
		{part("type", "Metaspace", "replacement", "_"), "pre_tokenizer", `pre_tokenizer: Metaspace with replacement "_" is not supported`},
		{part("type", "Metaspace", "replacement", "▁", "prepend_scheme", "last"), "pre_tokenizer", `pre_tokenizer: Metaspace with prepend_scheme "last" is not supported`},
		{nil, "pre_tokenizer", "model: it has neither an unk_token nor a piece for every byte, so some text would have no ids"},
		{part("type", "Lowercase"), "normalizer", `normalizer: type "Lowercase" is not supported: there are NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence`},
		{part("type", "Replace", "pattern", part("Regex", "a"), "content", "b"), "normalizer", "normalizer: Replace with a pattern other than a String is not supported"},
		{[]any{part("id", 300, "content", "x", "lstrip", true)}, "added_tokens", `added_tokens: token "x": single_word, lstrip and rstrip are not supported on a token that is not special`},
		{[]any{part("id", 1<<24, "content", "x")}, "added_tokens", `added_tokens: token "x" has id 16777216`},
		{part("a", 1<<24), "model.vocab", `model: piece "a" has id 16777216`},
		{[]any{}, "added_tokens", "no end-of-text token: put a tokenizer_config.json with eos_token next to it"},
	} {
		_, err := newHuggingFace(edited(t, test.value, strings.Split(test.path, ".")...), nil)
		checkError(t, err, "", test.want)
	}
	_, err := newHuggingFace(edited(t, nil, "version"), []byte(`{"eos_token": {"content": "</doc>"}}`))
	checkError(t, err, "", `tokenizer_config.json: eos_token "</doc>" is not a special added token of tokenizer.json`)
	_, err = newHuggingFace([]byte(`{"added_tokens": [{"id": 2, "content": "x", "normalized": true}], "model": {"type": "BPE", "unk_token": "u", "vocab": {"a": 0, "u": 1}},
		"normalizer": {"type": "Replace", "pattern": {"String": "x"}, "content": ""}}`), nil)
	checkError(t, err, "", `added_tokens: token "x": the normalizer leaves nothing of it`)
	dir := t.TempDir()
	_, err = NewTokenizer(filepath.Join(dir, "missing.json"))
	checkError(t, err, dir, "stat DIR/missing.json: no such file or directory")
}

// FuzzHuggingFace: any file is rejected or gives ids of its vocabulary.
func FuzzHuggingFace(f *testing.F) {
	const end = `{"id": 4, "content": "</s>", "special": true}`
	f.Add([]byte(`{"added_tokens": [`+end+`, {"id": 5, "content": "x", "normalized": true}], "normalizer": {"type": "Replace", "pattern": {"String": "y"}, "content": "z"},
		"model": {"type": "BPE", "unk_token": "u", "vocab": {"a": 0, "u": 1}, "merges": []}}`), []byte(`{"eos_token": "</s>"}`), []byte("a b x"))
	f.Add([]byte(`{"added_tokens": [`+end+`], "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
		{"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated"}, {"type": "Digits", "individual_digits": true}]},
		"model": {"type": "BPE", "unk_token": "u", "fuse_unk": true, "vocab": {"a": 0, "u": 1, "ab": 2, "b": 3}, "merges": ["a b"]}}`), []byte(nil), []byte("a b 12"))
	f.Add([]byte(`{"added_tokens": [`+end+`], "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
		"model": {"type": "BPE", "unk_token": "u", "vocab": {"a": 0, "u": 1, "▁a": 2, "▁": 3}, "merges": [["▁", "a"]], "ignore_merges": true}}`), []byte(nil), []byte("a b 12"))
	f.Fuzz(func(t *testing.T, raw, config, text []byte) {
		tok, err := newHuggingFace(raw, config)
		if err != nil {
			return
		}
		ids := mustEncode(t, tok, nil, text)
		for _, id := range ids {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Fatalf("id %d of %d", id, tok.VocabSize())
			}
		}
		tok.Decode(nil, ids)
	})
}

// TestAddedTokens: special ones are ordinary text, others are found, and the file says which one
// ends a document.
func TestAddedTokens(t *testing.T) {
	raw := edited(t, []any{
		map[string]any{"id": 270, "content": "<|end|>", "special": true},
		map[string]any{"id": 271, "content": "cat sat", "special": false},
		map[string]any{"id": 272, "content": "cat", "special": false},
	}, "added_tokens")
	tok, err := newHuggingFace(raw, []byte(`{"eos_token": {"content": "<|end|>"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if tok.EOS() != 270 || tok.VocabSize() != 273 {
		t.Errorf("EOS %d, VocabSize %d", tok.EOS(), tok.VocabSize())
	}
	ids := mustEncode(t, tok, nil, []byte("cat cat sat<|end|>"))
	if !slices.Contains(ids, 272) || !slices.Contains(ids, 271) || slices.Contains(ids, 270) {
		t.Errorf("ids are %v", ids)
	}
	if got := string(tok.Decode(nil, append(ids, 270))); got != "cat cat sat<|end|>" {
		t.Errorf("comes back as %q", got)
	}
}

// TestMetaspace compares ids of a small vocabulary with those worked out by hand, for each way to
// prepend.
func TestMetaspace(t *testing.T) {
	vocab := map[string]int{"<unk>": 0, "▁": 1, "a": 2, "b": 3, "▁a": 4, "▁▁": 5, "ab": 6, "▁ab": 7}
	for b := range 256 {
		vocab[fmt.Sprintf("<0x%02X>", b)] = 10 + b
	}
	model := map[string]any{"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true, "vocab": vocab,
		"merges": []string{"▁ ▁", "▁ a", "a b", "▁a b"}}
	eos := []any{map[string]any{"id": 266, "content": "</s>", "special": true}, map[string]any{"id": 267, "content": "#", "special": false}}
	for _, test := range []struct {
		pre, normalizer any
		text            string
		want            []int32
	}{
		{map[string]any{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, nil, "ab a  ab#ab", []int32{7, 4, 1, 7, 267, 7}},
		{map[string]any{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}, nil, "ab a  ab#ab", []int32{7, 4, 1, 7, 267, 6}},
		{map[string]any{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false}, nil, "ab a  ab", []int32{6, 4, 5, 6}},
		{map[string]any{"type": "Metaspace", "replacement": "▁", "add_prefix_space": true}, nil, " ab", []int32{7}},
		{nil, map[string]any{"type": "Sequence", "normalizers": []any{
			map[string]any{"type": "Prepend", "prepend": "▁"},
			map[string]any{"type": "Replace", "pattern": map[string]any{"String": " "}, "content": "▁"}}}, " ab\xffé", []int32{5, 6, 10 + 0xff, 10 + 0xc3, 10 + 0xa9}},
	} {
		tok, err := newHuggingFace(mustJSON(map[string]any{"added_tokens": eos, "pre_tokenizer": test.pre, "normalizer": test.normalizer, "model": model}), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := mustEncode(t, tok, nil, []byte(test.text)); !slices.Equal(got, test.want) {
			t.Errorf("%v, %v: %q is %v, want %v", test.pre, test.normalizer, test.text, got, test.want)
		}
	}
}

// TestEncodeAtOnce uses one tokenizer from several goroutines.
func TestEncodeAtOnce(t *testing.T) {
	tok, _ := trained(t, 300, someText)
	want := mustEncode(t, tok, nil, []byte(someText))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if got := mustEncode(t, tok, nil, []byte(someText)); !slices.Equal(got, want) {
					t.Error("ids differ")
				}
			}
		})
	}
	wg.Wait()
}

// TestTrainedIDsElsewhere loads a trained tokenizer.json in two other implementations.
func TestTrainedIDsElsewhere(t *testing.T) {
	libraries := []string{"@anush008/tokenizers", "@huggingface/tokenizers"}
	dir := reference(t, libraries...)
	var texts []string
	documents := mixedText(t)
	for _, d := range documents {
		texts = append(texts, string(d))
	}
	tok, folder := trained(t, 4000, texts...)
	for _, library := range libraries {
		compareIDs(t, tok, documents, otherIDs(t, dir, library, filepath.Join(folder, tokenizerJSON), documents))
	}
}

// TestSpecialNeverWhole: a text that is a special token's name is ordinary text even where words
// are looked up as a whole.
func TestSpecialNeverWhole(t *testing.T) {
	tok, _ := trained(t, 270, someText)
	var file map[string]any
	if err := json.Unmarshal(tok.ExportFiles()[tokenizerJSON], &file); err != nil {
		t.Fatal(err)
	}
	model := file["model"].(map[string]any)
	model["ignore_merges"] = true
	model["vocab"].(map[string]any)[endOfText] = tok.EOS()
	file["pre_tokenizer"] = map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}
	special, err := newHuggingFace(mustJSON(file), nil)
	if err != nil {
		t.Fatal(err)
	}
	ids := mustEncode(t, special, nil, []byte(endOfText))
	if slices.Contains(ids, special.EOS()) || string(special.Decode(nil, ids)) != endOfText {
		t.Errorf("%s is %v, of which %d is the end of text", endOfText, ids, special.EOS())
	}
}
