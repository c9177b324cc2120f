package sentencepiece

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	m := &Model{
		Pieces: []Piece{{"<unk>", 0, Unknown}, {"▁a", -1.5, Normal}, {"</s>", 0, Control}, {"<0x41>", -0.25, Byte}},
		Type:   BPE, WhitespaceSuffix: true, ByteFallback: true, EOS: -1, CharsMap: []byte{1, 2}, RemoveSpaces: true,
	}
	got, err := Parse(m.Marshal())
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, %v, want %+v", got, err, m)
	}

	// One piece with only a text, and a field that is ignored.
	got, err = Parse([]byte("\x0a\x03\x0a\x01x\x29\x01\x02\x03\x04\x05\x06\x07\x08"))
	want := &Model{Pieces: []Piece{{"x", 0, Normal}}, Type: Unigram, EOS: 2, DummyPrefix: true, RemoveSpaces: true, EscapeSpaces: true}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want the defaults %+v", got, err, want)
	}

	for raw, want := range map[string]string{
		"":                 "it has no pieces",
		"\x0a\x05\x0a":     "unexpected EOF",
		"\x0a\x03\x0a\x09": "unexpected EOF",
		"\x00":             "invalid field number",
	} {
		if _, err := Parse([]byte(raw)); err == nil || !strings.HasPrefix(err.Error(), "is not a SentencePiece model: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error is %v, want it to say %q", raw, err, want)
		}
	}
}

func TestTypeString(t *testing.T) {
	if got := Unigram.String() + " " + Type(9).String(); got != "unigram 9" {
		t.Error(got)
	}
}
