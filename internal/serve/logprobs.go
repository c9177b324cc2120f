package serve

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sambatrain/sambatrain/data"
)

// logprobs are the API's log-probabilities, in nats, of the prompt's tokens where it is
// echoed, and of the new ones.
type logprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []float64            `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`

	tok  data.Tokenizer
	most int
}

// add takes a token and the scores that it is one of.
func (l *logprobs) add(token int32, scores []float32) {
	scores = scores[:l.tok.VocabSize()]
	greatest := slices.Max(scores)
	sum := 0.0
	for _, x := range scores {
		sum += math.Exp(float64(x - greatest))
	}
	lse := float64(greatest) + math.Log(sum)
	l.Tokens = append(l.Tokens, l.spell(token))
	l.TokenLogprobs = append(l.TokenLogprobs, float64(scores[token])-lse)
	top := map[string]float64{}
	for _, id := range likeliest(scores, l.most) {
		// Of tokens that are spelt alike, the likeliest counts.
		name := l.spell(id)
		if _, ok := top[name]; !ok {
			top[name] = float64(scores[id]) - lse
		}
	}
	l.TopLogprobs = append(l.TopLogprobs, top)
}

// likeliest are the n highest scores' ids, the highest first.
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

// spell is a token as the API has it: its text, or its bytes where these are no
// characters.
func (l *logprobs) spell(id int32) string {
	if id == l.tok.EOS() {
		return "<|endoftext|>"
	}
	text := l.tok.Decode(nil, []int32{id})
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

// finish counts the tokens' places in the text, in characters.
func (l *logprobs) finish() {
	at := 0
	l.TextOffset = make([]int, len(l.Tokens))
	if l.Tokens == nil {
		l.Tokens, l.TokenLogprobs, l.TopLogprobs = []string{}, []float64{}, []map[string]float64{}
	}
	for i, t := range l.Tokens {
		l.TextOffset[i] = at
		if t != "<|endoftext|>" {
			at += utf8.RuneCountInString(t)
		}
	}
}
