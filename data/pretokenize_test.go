package data

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dlclark/regexp2"
)

// TestScannersEqualPatterns compares the scanners with the expressions that they stand for.
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
			text = bytes.ReplaceAll(text, []byte("ſ"), nil) // which regexp2 does not take for an s
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

// TestSlowPattern: a pattern whose time doubles with each character is an error of the text that shows it, and the
// tokenizer goes on to encode others.
func TestSlowPattern(t *testing.T) {
	tok, _ := trained(t, 270, someText)
	b := tok.(*bpe)
	var err error
	if b.split, err = splitRegex("(?:a|aa)+$|.", false, 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	text := []byte(strings.Repeat("a", 59) + "b")
	_, err = tok.Encode(nil, text)
	checkError(t, err, tok.Name(), `tokenizer DIR: pre_tokenizer: one match of pattern "(?:a|aa)+$|." takes more than 20ms in a text of 60 bytes: use another pattern`)
	if ids := mustEncode(t, tok, nil, []byte("aab")); string(tok.Decode(nil, ids)) != "aab" {
		t.Errorf("aab is %v", ids)
	}
	folder := writeFiles(t, map[string]string{"a.txt": "fine", "b.txt": string(text)})
	p := preparer{folder: folder, tok: tok, layout: smallLayout}
	c := &chunk{raw: []rawDocument{{name: "a.txt", data: []byte("fine")}, {name: "b.txt", data: text}}}
	p.tokenize(c)
	if c.err == nil || !strings.HasPrefix(c.err.Error(), "data.text: "+filepath.Join(folder, "b.txt")+": tokenizer ") {
		t.Errorf("error is %v", c.err)
	}
}
