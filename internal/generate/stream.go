package generate

import (
	"bytes"
	"unicode/utf8"
)

// contextTokens is the number of preceding tokens that are decoded with a new one: the spelling of
// a token can depend on them (a space before the first word of a text is left out).
const contextTokens = 8

// Stream turns tokens into text as they arrive. It holds back incomplete characters, and text that
// may become a stop string.
type Stream struct {
	decode func(dst []byte, ids []int32) []byte
	stops  [][]byte
	recent []int32
	spelt  []byte // recent as text
	held   []byte
	ended  bool
}

// NewStream continues the text of prompt. decode appends the text of ids to dst.
func NewStream(decode func(dst []byte, ids []int32) []byte, prompt []int32, stops []string) *Stream {
	s := &Stream{decode: decode, recent: append([]int32{}, prompt[max(0, len(prompt)-contextTokens):]...)}
	for _, stop := range stops {
		if stop != "" {
			s.stops = append(s.stops, []byte(stop))
		}
	}
	s.spelt = decode(nil, s.recent)
	return s
}

// Push adds the next token and returns the text that is now certain, valid until the next call, and
// whether a stop string ends it. The stop string itself is left out.
func (s *Stream) Push(token int32) (text []byte, stopped bool) {
	if s.ended {
		return nil, true
	}
	s.held = append(s.held, s.spell(token)...)
	end, hold := len(s.held), 0
	for _, stop := range s.stops {
		if i := bytes.Index(s.held, stop); i >= 0 { // of several, the one that begins first
			end, s.ended = min(end, i), true
		}
		hold = max(hold, overlap(s.held, stop))
	}
	if !s.ended {
		end -= max(hold, incomplete(s.held))
	}
	text, s.held = s.held[:end:end], s.held[end:]
	return text, s.ended
}

// Rest returns what was held back, once no more tokens come.
func (s *Stream) Rest() []byte {
	if s.ended {
		return nil
	}
	s.ended = true
	return s.held
}

// spell returns the text that a token adds.
func (s *Stream) spell(token int32) []byte {
	s.recent = append(s.recent, token)
	all := s.decode(nil, s.recent)
	added := all[min(len(s.spelt), len(all)):]
	s.spelt = all
	if len(s.recent) > 4*contextTokens {
		s.recent = append(s.recent[:0], s.recent[len(s.recent)-contextTokens:]...)
		s.spelt = s.decode(nil, s.recent)
	}
	return added
}

// overlap returns the number of bytes at the end of text that are a prefix of stop.
func overlap(text, stop []byte) int {
	for n := min(len(text), len(stop)-1); n > 0; n-- {
		if bytes.HasPrefix(stop, text[len(text)-n:]) {
			return n
		}
	}
	return 0
}

// incomplete returns the number of bytes at the end of text that may be the start of an incomplete
// character.
func incomplete(text []byte) int {
	for n := 1; n <= min(utf8.UTFMax-1, len(text)); n++ {
		tail := text[len(text)-n:]
		if utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}
