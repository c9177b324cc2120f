package data

import (
	"bytes"
	"fmt"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// Patterns that have their own scanner, which gives the same words as the pattern, many times
// faster.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// class is the classification of characters in the patterns. Bytes that are not UTF-8 are `other`,
// one at a time.
type class uint8

const (
	other class = iota
	letter
	number
	space
)

var bmpClasses = sync.OnceValue(func() *[1 << 16]class {
	var table [1 << 16]class
	for r := range rune(len(table)) {
		table[r] = classify(r)
	}
	return &table
})

func classify(r rune) class {
	switch {
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return number
	case unicode.IsSpace(r):
		return space
	}
	return other
}

// scanner reads classes of characters.
type scanner struct {
	classes *[1 << 16]class
	digits  int // maximum number of digits in a word
}

func (s scanner) at(text []byte, i int) (c class, r rune, size int) {
	if b := text[i]; b < utf8.RuneSelf {
		return s.classes[b], rune(b), 1
	}
	r, size = utf8.DecodeRune(text[i:])
	if int(r) < len(s.classes) {
		return s.classes[r], r, size
	}
	return classify(r), r, size
}

// run returns the end of the run of class want that starts at i, with at most n characters.
func (s scanner) run(text []byte, i int, want class, n int) int {
	for ; i < len(text) && n > 0; n-- {
		c, _, size := s.at(text, i)
		if c != want {
			break
		}
		i += size
	}
	return i
}

const unbounded = int(^uint(0) >> 1)

// contraction returns the length of 's, 't, 're, 've, 'm, 'll or 'd at the start of text, or 0.
func contraction(text []byte, ignoreCase bool) int {
	if len(text) < 2 || text[0] != '\'' {
		return 0
	}
	lower := func(b byte) byte {
		if ignoreCase && b >= 'A' && b <= 'Z' {
			return b + 'a' - 'A'
		}
		return b
	}
	switch lower(text[1]) {
	case 's', 't', 'm', 'd':
		return 2
	}
	if ignoreCase && bytes.HasPrefix(text[1:], []byte("ſ")) {
		return 3 // the long s, whose other case is s
	}
	if len(text) >= 3 {
		switch string([]byte{lower(text[1]), lower(text[2])}) {
		case "re", "ve", "ll":
			return 3
		}
	}
	return 0
}

// spaces returns the length of the word at the start of text, which is whitespace: all of it at the
// text's end, otherwise all but its last character, which belongs to what follows, or is a word of
// its own if it is the only one.
func (s scanner) spaces(text []byte) int {
	last, i := 0, 0
	for i < len(text) {
		c, _, size := s.at(text, i)
		if c != space {
			break
		}
		last = i
		i += size
	}
	if i < len(text) && last > 0 {
		return last
	}
	return i
}

// gpt2 returns the length of the first word of text according to patternGPT2.
func (s scanner) gpt2(text []byte) int {
	if n := contraction(text, false); n > 0 {
		return n
	}
	i := 0
	if text[0] == ' ' && len(text) > 1 {
		i = 1
	}
	if c, _, _ := s.at(text, i); c != space {
		return s.run(text, i, c, unbounded)
	}
	return s.spaces(text)
}

// llama3 returns the length of the first word of text according to patternLlama3, or to
// patternQwen2 if digits is 1.
func (s scanner) llama3(text []byte) int {
	if n := contraction(text, true); n > 0 {
		return n
	}
	c, r, size := s.at(text, 0)
	switch {
	case c == letter:
		return s.run(text, size, letter, unbounded)
	case c == number:
		return s.run(text, 0, number, s.digits)
	case r != '\r' && r != '\n' && size < len(text):
		if next, _, _ := s.at(text, size); next == letter {
			return s.run(text, size, letter, unbounded)
		}
	}
	i := 0
	if text[0] == ' ' && len(text) > 1 {
		i = 1
	}
	if c, _, _ := s.at(text, i); c == other {
		i = s.run(text, i, other, unbounded)
		for i < len(text) && (text[i] == '\r' || text[i] == '\n') {
			i++
		}
		return i
	}
	end := s.run(text, 0, space, unbounded)
	if n := bytes.LastIndexAny(text[:end], "\r\n"); n >= 0 {
		return n + 1
	}
	return s.spaces(text)
}

// scan makes a splitter from a function that returns the length of a text's first word.
func scan(next func(text []byte) int) splitter {
	return func(text []byte, _ bool, emit func([]byte)) {
		for len(text) > 0 {
			n := next(text)
			emit(text[:n])
			text = text[n:]
		}
	}
}

// splitPattern splits at the matches of a regular expression in Oniguruma's notation, and keeps the
// matches as words. removeGaps drops what is between them.
func splitPattern(pattern string, removeGaps bool) (splitter, error) {
	s := scanner{classes: bmpClasses(), digits: 3}
	switch pattern {
	case patternGPT2:
		return scan(s.gpt2), nil
	case patternLlama3:
		return scan(s.llama3), nil
	case patternQwen2:
		s.digits = 1
		return scan(s.llama3), nil
	}
	return splitRegex(pattern, removeGaps, patience{match: 10 * time.Second, character: 100 * time.Microsecond})
}

// patience is how long a pattern may take: for one match, and additionally for each character of a
// text. Oniguruma's notation allows patterns whose time grows with a power of the text, or faster;
// others take about a microsecond.
type patience struct{ match, character time.Duration }

// slowPattern is the panic value of a splitter whose pattern takes too long; Encode turns it into
// an error.
type slowPattern struct {
	pattern string
	took    time.Duration
	size    int // of the text, in bytes
}

func (s slowPattern) Error() string {
	return fmt.Sprintf("pre_tokenizer: pattern %q takes more than %v in a text of %d bytes: use another pattern", s.pattern, s.took, s.size)
}

// splitRegex is splitPattern for any pattern.
func splitRegex(pattern string, removeGaps bool, p patience) (splitter, error) {
	re, err := regexp2.Compile(pattern, regexp2.None)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	re.MatchTimeout = p.match
	return func(text []byte, _ bool, emit func([]byte)) {
		runes, starts := runesOf(text)
		from := 0
		gap := func(to int) {
			if from < to && !removeGaps {
				emit(text[from:to])
			}
		}
		began, most := time.Now(), p.match+time.Duration(len(runes))*p.character
		m, err := re.FindRunesMatch(runes)
		for ; m != nil && err == nil; m, err = re.FindNextMatch(m) {
			if time.Since(began) > most {
				panic(slowPattern{pattern, most, len(text)})
			}
			start, end := starts[m.Index], starts[m.Index+m.Length]
			gap(start)
			if start < end {
				emit(text[start:end])
			}
			from = end
		}
		if err != nil {
			panic(slowPattern{pattern, p.match, len(text)}) // a match has no other error
		}
		gap(len(text))
	}, nil
}

// runesOf decodes text, and returns where each character starts and where the text ends.
func runesOf(text []byte) (runes []rune, starts []int) {
	runes, starts = make([]rune, 0, len(text)), make([]int, 0, len(text)+1)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		runes, starts = append(runes, r), append(starts, i)
		i += size
	}
	return runes, append(starts, len(text))
}

// splitText is splitPattern for a text instead of a pattern.
func splitText(at []byte, removeGaps bool) splitter {
	return func(text []byte, _ bool, emit func([]byte)) {
		for len(text) > 0 {
			i := bytes.Index(text, at)
			if i < 0 {
				i = len(text)
			}
			if i > 0 && !removeGaps {
				emit(text[:i])
			}
			if i < len(text) {
				emit(at)
				i += len(at)
			}
			text = text[i:]
		}
	}
}

// splitDigits makes numbers separate words: each digit, or each run.
func splitDigits(individual bool) splitter {
	s := scanner{classes: bmpClasses(), digits: unbounded}
	if individual {
		s.digits = 1
	}
	return func(text []byte, _ bool, emit func([]byte)) {
		from := 0
		for i := 0; i < len(text); {
			c, _, size := s.at(text, i)
			if c != number {
				i += size
				continue
			}
			if from < i {
				emit(text[from:i])
			}
			from = s.run(text, i, number, s.digits)
			emit(text[i:from])
			i = from
		}
		if from < len(text) {
			emit(text[from:])
		}
	}
}

// inSequence makes b split the words of a.
func inSequence(a, b splitter) splitter {
	return func(text []byte, first bool, emit func([]byte)) {
		a(text, first, func(word []byte) {
			b(word, first, emit)
			first = false
		})
	}
}

func keepWhole(text []byte, _ bool, emit func([]byte)) { emit(text) }

// metaspace stands for a space in SentencePiece vocabularies.
const metaspace = "▁"

// splitMetaspaces starts a word at each metaspace.
func splitMetaspaces(text []byte, _ bool, emit func([]byte)) {
	for len(text) > 0 {
		n := bytes.Index(text[1:], []byte(metaspace)) + 1
		if n == 0 {
			n = len(text)
		}
		emit(text[:n])
		text = text[n:]
	}
}

// splitSpaceRuns starts a word at each run of metaspaces. If no merge crosses from another
// character to a metaspace, words are encoded as they are within the whole text.
func splitSpaceRuns(text []byte, _ bool, emit func([]byte)) {
	for len(text) > 0 {
		i := 0
		for bytes.HasPrefix(text[i:], []byte(metaspace)) {
			i += len(metaspace)
		}
		n := bytes.Index(text[i:], []byte(metaspace))
		if n < 0 {
			n = len(text) - i
		}
		emit(text[:i+n])
		text = text[i+n:]
	}
}

// crossesSpaces reports whether a piece has another character before a metaspace.
func crossesSpaces(piece string) bool {
	for i, r := range piece {
		if i > 0 && r == '▁' && !bytes.HasSuffix([]byte(piece[:i]), []byte(metaspace)) {
			return true
		}
	}
	return false
}
