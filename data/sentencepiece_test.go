package data

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sambatrain/sambatrain/data/sentencepiece"
)

// smallModel has an unknown piece, two control pieces, and then the given normal ones.
func smallModel(pieces ...sentencepiece.Piece) *sentencepiece.Model {
	m := &sentencepiece.Model{Type: sentencepiece.Unigram, EOS: 2, DummyPrefix: true, RemoveSpaces: true, EscapeSpaces: true}
	m.Pieces = append(m.Pieces, sentencepiece.Piece{Text: "<unk>", Kind: sentencepiece.Unknown},
		sentencepiece.Piece{Text: "<s>", Kind: sentencepiece.Control}, sentencepiece.Piece{Text: "</s>", Kind: sentencepiece.Control})
	for _, p := range pieces {
		if p.Kind == 0 {
			p.Kind = sentencepiece.Normal
		}
		m.Pieces = append(m.Pieces, p)
	}
	return m
}

func encoder(t *testing.T, m *sentencepiece.Model) func(text string) []int32 {
	t.Helper()
	tok, err := newSentencePiece(m.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return func(text string) []int32 { return mustEncode(t, tok, nil, []byte(text)) }
}

// TestUnigramTies: among segmentations with close sums, the one reached first stays unless the
// float64 sum of another is above its float32 sum. At 1001 float32 values are 6e-5 apart.
func TestUnigramTies(t *testing.T) {
	for _, test := range []struct {
		x, xx float32
		want  []int32
	}{
		{-1, -1, []int32{3, 6}},
		{-0.99999, -1.00001, []int32{5, 4}},
		{-1.00001, -1.00002, []int32{3, 6}},
	} {
		encode := encoder(t, smallModel(sentencepiece.Piece{Text: "▁", Score: -1000}, sentencepiece.Piece{Text: "x", Score: test.x},
			sentencepiece.Piece{Text: "▁x", Score: -1000}, sentencepiece.Piece{Text: "xx", Score: test.xx}))
		if got := encode("xx"); !slices.Equal(got, test.want) {
			t.Errorf("x %v, xx %v: ids are %v, want %v", test.x, test.xx, got, test.want)
		}
	}
}

// TestUnigram has ids worked out by hand.
func TestUnigram(t *testing.T) {
	byteModel := smallModel(sentencepiece.Piece{Text: "▁a", Score: -1}, sentencepiece.Piece{Text: "▁", Score: -2})
	byteModel.ByteFallback = true
	for b := range 256 {
		byteModel.Pieces = append(byteModel.Pieces, sentencepiece.Piece{Text: fmt.Sprintf("<0x%02X>", b), Kind: sentencepiece.Byte})
	}
	suffix := smallModel(sentencepiece.Piece{Text: "a▁", Score: -1}, sentencepiece.Piece{Text: "a", Score: -1.5}, sentencepiece.Piece{Text: "▁", Score: -2})
	suffix.WhitespaceSuffix = true
	bare := smallModel(sentencepiece.Piece{Text: "a", Score: -1}, sentencepiece.Piece{Text: "▁", Score: -2}, sentencepiece.Piece{Text: "▁a", Score: -1})
	bare.DummyPrefix, bare.RemoveSpaces = false, false
	kinds := smallModel(sentencepiece.Piece{Text: "▁", Score: -1}, sentencepiece.Piece{Text: "a", Score: -1},
		sentencepiece.Piece{Text: "aa", Score: -1, Kind: sentencepiece.Unused}, sentencepiece.Piece{Text: "ab", Kind: sentencepiece.UserDefined})
	for _, test := range []struct {
		name  string
		model *sentencepiece.Model
		text  string
		want  []int32
	}{
		{"unknowns are one", smallModel(sentencepiece.Piece{Text: "▁"}, sentencepiece.Piece{Text: "a"}), "xyaéaz", []int32{3, 0, 4, 0, 4, 0}},
		{"bytes of unknowns", byteModel, "a é", []int32{3, 4, 5 + 0xc3, 5 + 0xa9}},
		{"bytes that are not UTF-8 are U+FFFD", byteModel, "\xff", []int32{4, 5 + 0xef, 5 + 0xbf, 5 + 0xbd}},
		{"spaces at the ends and runs of them", byteModel, "  a   a ", []int32{3, 3}},
		{"nothing but spaces", byteModel, "   ", nil},
		{"spaces behind", suffix, " a  a", []int32{3, 3}},
		{"spaces as they are", bare, " a  a ", []int32{5, 4, 5, 4}},
		{"an unused and a user-defined piece", kinds, "aaab", []int32{3, 4, 4, 6}},
	} {
		if got := encoder(t, test.model)(test.text); !slices.Equal(got, test.want) {
			t.Errorf("%s: ids of %q are %v, want %v", test.name, test.text, got, test.want)
		}
	}
}

func TestSentencePieceRefuses(t *testing.T) {
	for want, change := range map[string]func(m *sentencepiece.Model){
		"model_type word is not supported: only bpe and unigram are":                   func(m *sentencepiece.Model) { m.Type = sentencepiece.Word },
		"escape_whitespaces false is not supported":                                    func(m *sentencepiece.Model) { m.EscapeSpaces = false },
		"it has no end-of-text piece (eos_id is -1), with which documents end":         func(m *sentencepiece.Model) { m.EOS = -1 },
		`its end-of-text piece "a" is not a control piece, so a text could contain it`: func(m *sentencepiece.Model) { m.EOS = 3 },
		"it has an empty piece":                                            func(m *sentencepiece.Model) { m.Pieces[3].Text = "" },
		`piece "a\x00" has a zero byte`:                                    func(m *sentencepiece.Model) { m.Pieces[3].Text = "a\x00" },
		`it has the piece "b" twice`:                                       func(m *sentencepiece.Model) { m.Pieces[3].Text = "b" },
		`piece "a" has the unknown type 7`:                                 func(m *sentencepiece.Model) { m.Pieces[3].Kind = 7 },
		"it has 2 unknown pieces, want one":                                func(m *sentencepiece.Model) { m.Pieces[3].Kind = sentencepiece.Unknown },
		"byte_fallback is set, but there are 0 byte pieces":                func(m *sentencepiece.Model) { m.ByteFallback = true },
		"normalizer_spec.precompiled_charsmap: is cut short":               func(m *sentencepiece.Model) { m.CharsMap = []byte{1} },
		"normalizer_spec.precompiled_charsmap: has a trie of 8 bytes in 5": func(m *sentencepiece.Model) { m.CharsMap = []byte{8, 0, 0, 0, 0} },
		`piece "a" is unused, which is not supported in a bpe model`: func(m *sentencepiece.Model) {
			m.Type, m.Pieces[3].Kind = sentencepiece.BPE, sentencepiece.Unused
		},
	} {
		m := smallModel(sentencepiece.Piece{Text: "a"}, sentencepiece.Piece{Text: "b"})
		change(m)
		_, err := newSentencePiece(m.Marshal())
		checkError(t, err, "", want)
	}
}

// TestLongDocument: ids of a long text are those that a table over the whole text gives, although
// parts are written early.
func TestLongDocument(t *testing.T) {
	m := smallModel(sentencepiece.Piece{Text: "▁", Score: -2}, sentencepiece.Piece{Text: "a", Score: -3}, sentencepiece.Piece{Text: "b", Score: -3.5},
		sentencepiece.Piece{Text: "ab", Score: -5}, sentencepiece.Piece{Text: "▁a", Score: -4}, sentencepiece.Piece{Text: "b▁ab", Score: -9})
	random := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	for range 20000 {
		text.WriteString([]string{"a", "b", "c", " "}[random.IntN(4)])
	}
	normal := "▁" + strings.Join(strings.Fields(text.String()), "▁")
	ends := make([]pathEnd, len(normal)+1)
	for i := range ends[1:] {
		ends[1+i].start = none
	}
	for i, r := range normal {
		known := false
		reach := func(to int, id int32, score float64) {
			if ends[to].start < 0 || score > float64(ends[to].score) {
				ends[to] = pathEnd{float32(score), int32(i), id}
			}
		}
		single := i + utf8.RuneLen(r)
		for n := 1; n <= 6 && i+n <= len(normal); n++ { // shorter pieces first
			for id, p := range m.Pieces {
				if p.Kind == sentencepiece.Normal && p.Text == normal[i:i+n] {
					reach(i+n, int32(id), float64(p.Score)+float64(ends[i].score))
					known = known || i+n == single
				}
			}
		}
		if !known {
			reach(single, 0, float64(float32(-9-unknownPenalty)+ends[i].score))
		}
	}
	var want []int32
	for i := len(normal); i > 0; i = int(ends[i].start) {
		want = append(want, ends[i].id)
	}
	slices.Reverse(want)
	want = slices.CompactFunc(want, func(a, b int32) bool { return a == 0 && b == 0 })
	if got := encoder(t, m)(text.String()); !slices.Equal(got, want) {
		t.Errorf("ids differ from those of a table of the whole text")
	}
}

// TestSentencePieceExports: a tokenizer.json is exported if it gives the same ids.
func TestSentencePieceExports(t *testing.T) {
	for name, test := range map[string]struct {
		change func(m *sentencepiece.Model)
		want   bool
	}{
		"as Llama's":                        {func(*sentencepiece.Model) {}, true},
		"no dummy prefix":                   {func(m *sentencepiece.Model) { m.DummyPrefix = false }, true},
		"unigram":                           {func(m *sentencepiece.Model) { m.Type = sentencepiece.Unigram }, false},
		"spaces removed":                    {func(m *sentencepiece.Model) { m.RemoveSpaces = true }, false},
		"spaces behind":                     {func(m *sentencepiece.Model) { m.WhitespaceSuffix = true }, false},
		"a user-defined symbol":             {func(m *sentencepiece.Model) { m.Pieces[4].Kind = sentencepiece.UserDefined }, false},
		"a piece of characters without ids": {func(m *sentencepiece.Model) { m.Pieces[5].Text = "xb" }, false},
	} {
		m := smallModel(sentencepiece.Piece{Text: "▁"}, sentencepiece.Piece{Text: "a"}, sentencepiece.Piece{Text: "▁a", Score: -1}, sentencepiece.Piece{Text: "b", Score: -2})
		m.Type, m.RemoveSpaces = sentencepiece.BPE, false
		test.change(m)
		tok, err := newSentencePiece(m.Marshal())
		if err != nil {
			t.Fatal(err)
		}
		raw, ok := tok.ExportFiles()[tokenizerJSON]
		if ok != test.want {
			t.Errorf("%s: exported %v, want %v", name, ok, test.want)
		}
		if !ok {
			continue
		}
		other, err := newHuggingFace(raw, tok.ExportFiles()[tokenizerConfig])
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"a ab", " a  xx a", ""} {
			if got, want := mustEncode(t, other, nil, []byte(text)), mustEncode(t, tok, nil, []byte(text)); !slices.Equal(got, want) || other.EOS() != tok.EOS() {
				t.Errorf("%s: %q is %v in the tokenizer.json, want %v", name, text, got, want)
			}
		}
	}
}

// FuzzSentencePiece: any file is rejected or gives ids of its vocabulary.
func FuzzSentencePiece(f *testing.F) {
	m := smallModel(sentencepiece.Piece{Text: "▁"}, sentencepiece.Piece{Text: "▁a", Score: -1}, sentencepiece.Piece{Text: "b", Kind: sentencepiece.UserDefined})
	f.Add(m.Marshal(), []byte("a  b"))
	m.CharsMap = []byte{8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 'x', 0}
	f.Add(m.Marshal(), []byte("a\x00 \xff"))
	m.Type, m.WhitespaceSuffix = sentencepiece.BPE, true
	f.Add(m.Marshal(), []byte("ab▁"))
	f.Fuzz(func(t *testing.T, raw, text []byte) {
		tok, err := newSentencePiece(raw)
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
