package serve

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sambatrain/sambatrain/data"
)

// endOfText is this API's spelling of the end-of-text token of any tokenizer.
const endOfText = "<|endoftext|>"

// logprobs are the API's log-probabilities, in nats, of the prompt's tokens if it is echoed, and of
// the new ones. A token with nothing before it has none: null. The likeliest tokens are listed
// along with the token itself.
type logprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []*float64           `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"` // in characters of the choice's text
}

func newLogprobs() *logprobs {
	return &logprobs{Tokens: []string{}, TokenLogprobs: []*float64{}, TopLogprobs: []map[string]float64{}, TextOffset: []int{}}
}

// recorder collects the log-probabilities of a text's tokens as they arrive. A nil recorder
// collects none.
type recorder struct {
	tok    data.Tokenizer
	most   int // number of likeliest tokens
	got    *logprobs
	recent []int32 // the previous tokens, whose end a token's spelling depends on

	characters int    // before part
	part       []byte // of an incomplete character
}

// newRecorder records a prompt's continuation, and the prompt if it is echoed.
func newRecorder(tok data.Tokenizer, most int, p prompt, echo bool) *recorder {
	r := &recorder{tok: tok, most: most, got: newLogprobs()}
	switch {
	case !echo:
		r.recent = slices.Clone(p.ids[max(0, len(p.ids)-contextTokens):])
	case p.begun:
		r.recent = p.ids[:1:1]
	default:
		r.append(p.ids[0], nil, nil)
	}
	return r
}

// contextTokens is the number of tokens that are decoded before one, to determine its spelling
// there.
const contextTokens = 8

// add adds a token and the logits that it was chosen from.
func (r *recorder) add(token int32, scores []float32) {
	if r == nil {
		return
	}
	scores = scores[:r.tok.VocabSize()]
	greatest := slices.Max(scores)
	sum := 0.0
	for _, x := range scores {
		sum += math.Exp(float64(x - greatest))
	}
	lse := float64(greatest) + math.Log(sum)
	own := float64(scores[token]) - lse
	top := map[string]float64{}
	for _, id := range append(likeliest(scores, r.most), token) {
		// Of tokens with the same spelling, the likeliest counts.
		name := r.name(id)
		if _, ok := top[name]; !ok {
			top[name] = float64(scores[id]) - lse
		}
	}
	r.append(token, &own, top)
}

// append adds a token at its place in the text.
func (r *recorder) append(token int32, own *float64, top map[string]float64) {
	l := r.got
	l.Tokens = append(l.Tokens, r.name(token))
	l.TokenLogprobs = append(l.TokenLogprobs, own)
	l.TopLogprobs = append(l.TopLogprobs, top)
	l.TextOffset = append(l.TextOffset, r.place(r.spell(token)))
	if r.recent = append(r.recent, token); len(r.recent) > 4*contextTokens {
		r.recent = append(r.recent[:0], r.recent[len(r.recent)-contextTokens:]...)
	}
}

// place returns where text starts, in characters: if it starts within a character, where that one
// does.
func (r *recorder) place(text []byte) int {
	at, begin := r.characters, len(r.part)
	r.part = append(r.part, text...)
	for utf8.FullRune(r.part) {
		_, n := utf8.DecodeRune(r.part)
		r.part = r.part[n:]
		r.characters++
		if begin -= n; begin >= 0 {
			at = r.characters
		}
	}
	return at
}

// take returns what was added since the last call.
func (r *recorder) take() *logprobs {
	if r == nil {
		return nil
	}
	got := r.got
	r.got = newLogprobs()
	return got
}

// likeliest returns the ids of the n largest logits, the largest first.
func likeliest(scores []float32, n int) []int32 {
	var list []int32
	for i, x := range scores {
		if len(list) == n && (n == 0 || x <= scores[list[n-1]]) {
			continue
		}
		at := len(list)
		for at > 0 && x > scores[list[at-1]] {
			at--
		}
		list = slices.Insert(list, at, int32(i))
		list = list[:min(n, len(list))]
	}
	return list
}

// spell returns the text that a token adds to those before it.
func (r *recorder) spell(id int32) []byte {
	before := r.recent[max(0, len(r.recent)-contextTokens):]
	all := spelt(r.tok, append(slices.Clone(before), id))
	return all[min(len(spelt(r.tok, before)), len(all)):]
}

// spelt returns the text of tokens, with an end of text by its name.
func spelt(tok data.Tokenizer, ids []int32) []byte {
	var text []byte
	for {
		end := slices.Index(ids, tok.EOS())
		if end < 0 {
			return tok.Decode(text, ids)
		}
		text = append(tok.Decode(text, ids[:end]), endOfText...)
		ids = ids[end+1:]
	}
}

// name returns a token as the API represents it: its text, or its bytes if these are not
// characters.
func (r *recorder) name(id int32) string {
	text := r.spell(id)
	if utf8.Valid(text) {
		return string(text)
	}
	var s strings.Builder
	s.WriteString("bytes:")
	for _, b := range text {
		fmt.Fprintf(&s, "\\x%02x", b)
	}
	return s.String()
}
