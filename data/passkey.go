package data

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// The passkey task of Mohtashami and Jaggi (arXiv 2305.16300), in the words of their program, with
// a key of five digits as in Samba (arXiv 2406.07522, section 3.3): five parts separated by line
// breaks, of which the second and the fourth are prefixes of the filler.
const (
	passkeyTask     = "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will quiz you about the important information there."
	passkeyFiller   = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
	passkeyKey      = "The pass key is %[1]d. Remember it. %[1]d is the pass key."
	passkeyQuestion = "What is the pass key? The pass key is"
)

// Passkeys generates passkey documents. It must be used by one goroutine only.
type Passkeys struct {
	tok      Tokenizer
	begin    []int32 // end of text, the task and a line break
	filler   []int32 // grows
	question []int32 // a line break and the question
}

// NewPasskeys generates documents in the tokens of tok.
func NewPasskeys(tok Tokenizer) (*Passkeys, error) {
	p := &Passkeys{tok: tok}
	var err error
	if p.begin, err = tok.Encode([]int32{tok.EOS()}, []byte(passkeyTask+"\n")); err != nil {
		return nil, err
	}
	p.question, err = p.afterFiller("\n" + passkeyQuestion)
	return p, err
}

// Question returns a document whose prompt has exactly length tokens, with the key at a depth from
// 0, before all filler, to 1, after it. The filler is cut between tokens.
func (p *Passkeys) Question(r *rand.Rand, length int, depth float64) (Question, error) {
	return p.document(r, length, 0, func(filler int) int { return int(math.Round(depth * float64(filler))) })
}

// row implements task: the depth is uniform.
func (p *Passkeys) row(r *rand.Rand, n int) (Question, error) {
	return p.document(r, n, 1, func(filler int) int { return r.IntN(filler + 1) })
}

// document returns a question of n tokens: those of its prompt or, if end is 1, those of the
// prompt, the answer and an end of text. before chooses how many tokens of the filler come before
// the key.
func (p *Passkeys) document(r *rand.Rand, n, end int, before func(filler int) int) (Question, error) {
	key := 10000 + r.IntN(90000)
	q := Question{Answer: strconv.Itoa(key)}
	var err error
	if q.answer, err = inside(p.tok, passkeyQuestion, " "+q.Answer); err != nil {
		return q, err
	}
	line, err := p.afterFiller("\n" + fmt.Sprintf(passkeyKey, key) + "\n")
	if err != nil {
		return q, err
	}
	filler := n - len(p.begin) - len(line) - len(p.question) - end*(len(q.answer)+1)
	if filler < 0 {
		return q, fmt.Errorf("a passkey document of %d tokens has no room for the key: it needs %d more", n, -filler)
	}
	if err := p.grow(filler); err != nil {
		return q, err
	}
	first := before(filler)
	q.Prompt = slices.Concat(p.begin, p.filler[:first], line, p.filler[:filler-first], p.question)
	return q, nil
}

// afterFiller returns the tokens of text when it follows filler, which is cut between any two
// tokens. Many tokenizers join a full stop and a line break; then they are those after a word.
func (p *Passkeys) afterFiller(text string) ([]int32, error) {
	if tokens, err := inside(p.tok, passkeyFiller, text); err == nil {
		return tokens, nil
	}
	return inside(p.tok, strings.TrimSuffix(passkeyFiller, "."), text)
}

// grow generates at least n tokens of filler. Sentences are joined by spaces.
func (p *Passkeys) grow(n int) error {
	if len(p.filler) >= n {
		return nil
	}
	first, err := inside(p.tok, passkeyTask+"\n", passkeyFiller)
	if err != nil {
		return err
	}
	again, err := inside(p.tok, passkeyFiller, " "+passkeyFiller)
	if err != nil {
		return err
	}
	if len(p.filler) == 0 {
		p.filler = first
	}
	for len(p.filler) < n {
		p.filler = append(p.filler, again...)
	}
	return nil
}
