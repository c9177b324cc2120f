package data

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dlclark/regexp2"
)

// TestScannersEqualPatterns compares the scanners with the expressions that they replace.
func TestScannersEqualPatterns(t *testing.T) {
	for name, pattern := range map[string]string{"GPT-2": patternGPT2, "Llama 3": patternLlama3, "Qwen 2": patternQwen2} {
		fast, err := splitPattern(pattern, false)
		if err != nil {
			t.Fatal(err)
		}
		re := regexp2.MustCompile(pattern, regexp2.None)
		for _, text := range mixedText(t) {
			if len(text) > 1<<14 {
				continue
			}
			text = bytes.ReplaceAll(text, []byte("ſ"), nil) // regexp2 does not treat it as an s
			runes, starts := runesOf(text)
			m, _ := re.FindRunesMatch(runes)
			fast(text, true, func(word []byte) {
				if m == nil || !bytes.Equal(text[starts[m.Index]:starts[m.Index+m.Length]], word) {
					t.Fatalf("%s: got %q, want %v", name, word, m)
				}
				m, _ = re.FindNextMatch(m)
			})
			if m != nil {
				t.Fatalf("%s: %q is missing", name, m.String())
			}
		}
	}
}

// TestSlowPattern: a pattern whose time doubles with each character causes an error for the text
// that triggers it, and the tokenizer continues to encode others.
func TestSlowPattern(t *testing.T) {
	tok, _ := trained(t, 270, someText)
	b := tok.(*bpe)
	var err error
	soon := patience{match: 20 * time.Millisecond, character: time.Microsecond}
	if b.split, err = splitRegex("(?:a|aa)+$|.", false, soon); err != nil {
		t.Fatal(err)
	}
	text := []byte(strings.Repeat("a", 59) + "b")
	_, err = tok.Encode(nil, text)
	checkError(t, err, tok.Name(), `tokenizer DIR: pre_tokenizer: pattern "(?:a|aa)+$|." takes more than 20ms in a text of 60 bytes: use another pattern`)
	if ids := mustEncode(t, tok, nil, []byte("aab")); string(tok.Decode(nil, ids)) != "aab" {
		t.Errorf("aab is %v", ids)
	}
	// Each match is quick, but all together take quadratic time.
	if b.split, err = splitRegex("(?=.*z)a|.", false, soon); err != nil {
		t.Fatal(err)
	}
	// On a busy machine a single match may exceed its own limit first.
	_, err = tok.Encode(nil, []byte(strings.Repeat("a", 10_000)))
	want := `pattern "\(\?=\.\*z\)a\|\." takes more than (30|20)ms in a text of 10000 bytes: use another pattern$`
	if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
		t.Errorf("error is\n%v\nwant\n%s", err, want)
	}
	if b.split, err = splitRegex("(?:a|aa)+$|.", false, soon); err != nil {
		t.Fatal(err)
	}
	folder := writeFiles(t, map[string]string{"a.txt": "fine", "b.txt": string(text)})
	p := preparer{folder: folder, tok: tok, layout: smallLayout}
	c := &chunk{raw: []rawDocument{{name: "a.txt", data: []byte("fine")}, {name: "b.txt", data: text}}}
	p.tokenize(c)
	if c.err == nil || !strings.HasPrefix(c.err.Error(), "data.text: "+filepath.Join(folder, "b.txt")+": tokenizer ") {
		t.Errorf("error is %v", c.err)
	}
}

// TestPreTokenizers: the words of each supported form, according to Hugging Face's documentation.
func TestPreTokenizers(t *testing.T) {
	for _, test := range []struct{ part, text, want string }{
		{`{"type": "Split", "pattern": {"String": "--"}, "behavior": "Isolated"}`, "--a--b----c-", "--|a|--|b|--|--|c-"},
		{`{"type": "Split", "pattern": {"String": "ab"}, "behavior": "Removed", "invert": true}`, "xabyabz", "ab|ab"},
		{`{"type": "Split", "pattern": {"Regex": "[0-9]+"}, "behavior": "Isolated"}`, "a12b3", "a|12|b|3"},
		{`{"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Removed", "invert": true}`, "ab, c", "ab|c"},
		{`{"type": "Digits", "individual_digits": true}`, "a12b3", "a|1|2|b|3"},
		{`{"type": "Digits", "individual_digits": false}`, "a12b3c", "a|12|b|3|c"},
		{`{"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "Split", "pattern": {"String": "b"}, "behavior": "Isolated"}]}`, "ab1b", "a|b|1|b"},
		{`{"type": "ByteLevel", "add_prefix_space": true}`, "it's 5 o'clock\n\nnow", " it|'s| 5| o|'|clock|\n|\n|now"},
		{`{"type": "ByteLevel", "add_prefix_space": true}`, " no more", " no| more"},
		{`{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}`, "it's 5", "it's 5"},
		{`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}`, "a bc  d", "▁a|▁bc|▁|▁d"},
		{`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}`, " a", "▁a"},
		{`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false}`, "a b", "a▁b"},
		{`{"type": "Metaspace", "replacement": "▁", "add_prefix_space": false}`, "a b", "a|▁b"},
	} {
		var p hfPart
		if err := json.Unmarshal([]byte(test.part), &p); err != nil {
			t.Fatal(err)
		}
		b := &bpe{split: keepWhole}
		if _, err := b.preTokenizer(&p); err != nil {
			t.Errorf("%s: %v", test.part, err)
			continue
		}
		text := []byte(test.text)
		if b.normalize != nil {
			text = b.normalize(nil, text, true)
		}
		var words []string
		b.split(text, true, func(word []byte) { words = append(words, string(word)) })
		if got := strings.Join(words, "|"); got != test.want {
			t.Errorf("%s: %q is %q, want %q", test.part, test.text, got, test.want)
		}
	}
}

// TestNormalizers: each form alone, and in sequence.
func TestNormalizers(t *testing.T) {
	for _, test := range []struct{ part, text, want string }{
		{`{"type": "NFC"}`, "e\u0301 ﬁ", "é ﬁ"},
		{`{"type": "NFD"}`, "é ﬁ", "e\u0301 ﬁ"},
		{`{"type": "NFKC"}`, "e\u0301 ﬁ", "é fi"},
		{`{"type": "NFKD"}`, "é ﬁ", "e\u0301 fi"},
		{`{"type": "Prepend", "prepend": "▁"}`, "a b", "▁a b"},
		{`{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}`, " a b", "▁a▁b"},
		{`{"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend", "prepend": " "}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}`, "e\u0301 a", "▁é▁a"},
	} {
		var p hfPart
		if err := json.Unmarshal([]byte(test.part), &p); err != nil {
			t.Fatal(err)
		}
		f, err := normalizer(&p, nil)
		if err != nil {
			t.Errorf("%s: %v", test.part, err)
			continue
		}
		if got := string(f(nil, []byte(test.text), true)); got != test.want {
			t.Errorf("%s: %q becomes %q, want %q", test.part, test.text, got, test.want)
		}
	}
}
