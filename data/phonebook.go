package data

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Phonebooks generates phone books and questions about one entry (Jelassi et al., "Repeat After
// Me", arXiv 2402.01032): one line per entry, two examples drawn from the book, and a name. It must
// be used by one goroutine only.
type Phonebooks struct {
	tok Tokenizer
}

// NewPhonebooks makes books in the tokens of tok.
func NewPhonebooks(tok Tokenizer) (*Phonebooks, error) { return &Phonebooks{tok: tok}, nil }

type entry struct{ name, phone string }

func (e entry) line() string { return e.name + ": " + e.phone }

// draw returns a random entry: ten digits, the first 6 to 9.
func draw(r *rand.Rand) entry {
	var b strings.Builder
	b.WriteByte(byte('6' + r.IntN(4)))
	for range 9 {
		b.WriteByte(byte('0' + r.IntN(10)))
	}
	return entry{firstNames[r.IntN(len(firstNames))] + " " + lastNames[r.IntN(len(lastNames))], b.String()}
}

// MaxEntries is the number of entries in the largest book: names are distinct.
var MaxEntries = len(firstNames) * len(lastNames) / 4

// Question is about a book of that many entries, at least three.
func (p *Phonebooks) Question(r *rand.Rand, entries int) (Question, error) {
	if entries < 3 || entries > MaxEntries {
		return Question{}, fmt.Errorf("a phone book must have 3 to %d entries, not %d", MaxEntries, entries)
	}
	names := map[string]bool{}
	var book []entry
	for len(book) < entries {
		if e := draw(r); !names[e.name] {
			names[e.name] = true
			book = append(book, e)
		}
	}
	return p.ask(r, book)
}

// ask draws three entries: two examples and the one in question.
func (p *Phonebooks) ask(r *rand.Rand, book []entry) (Question, error) {
	order := r.Perm(len(book))[:3]
	var text strings.Builder
	for _, e := range book {
		text.WriteString(e.line() + "\n")
	}
	text.WriteString("\n" + book[order[0]].line() + "\n" + book[order[1]].line() + "\n\n")
	asked := book[order[2]]
	text.WriteString(asked.name + ":")
	q := Question{Answer: asked.phone}
	var err error
	if q.Prompt, err = p.tok.Encode([]int32{p.tok.EOS()}, []byte(text.String())); err != nil {
		return q, err
	}
	q.answer, err = inside(p.tok, asked.name+":", " "+asked.phone)
	return q, err
}

// row implements task: as many entries as fit.
func (p *Phonebooks) row(r *rand.Rand, n int) (Question, error) {
	names := map[string]bool{}
	var book []entry
	// Besides the book: examples, question and answer are at most four lines, and there are two
	// ends of text.
	tokens, most := 2, 0
	for len(book) < MaxEntries {
		e := draw(r)
		if names[e.name] {
			continue
		}
		line, err := inside(p.tok, "\n", e.line()+"\n")
		if err != nil {
			return Question{}, err
		}
		most = max(most, len(line)+2)
		if tokens+len(line)+4*most > n {
			break
		}
		tokens += len(line)
		names[e.name] = true
		book = append(book, e)
	}
	if len(book) < 3 {
		return Question{}, fmt.Errorf("a phone book of 3 entries does not fit a row of %d tokens", n)
	}
	q, err := p.ask(r, book)
	if err == nil && len(q.Prompt)+len(q.answer)+1 > n {
		err = fmt.Errorf("a phone book of %d entries has %d tokens, more than a row of %d", len(book), len(q.Prompt)+len(q.answer)+1, n)
	}
	return q, err
}
