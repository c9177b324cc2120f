package generate_test

import (
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/internal/generate"
)

// spell is a tokenizer of bytes.
func spell(dst []byte, ids []int32) []byte {
	for _, id := range ids {
		dst = append(dst, byte(id))
	}
	return dst
}

// words is a tokenizer like SentencePiece's: the space before the first word is left out.
func words(dst []byte, ids []int32) []byte {
	list := []string{" the", " cat", "s", " sat"}
	text := ""
	for _, id := range ids {
		text += list[id]
	}
	return append(dst, strings.TrimPrefix(text, " ")...)
}

func TestStream(t *testing.T) {
	for _, c := range []struct {
		name, text string
		stops      []string
		want       string // parts as they come, | between, . for none
		stopped    bool
	}{
		{"ascii", "abc", nil, "a|b|c", false},
		{"characters are whole", "aé€😀z", nil, "a|.|é|.|.|€|.|.|.|😀|z", false},
		{"a character that never ends", "a\xe2\x82", nil, "a|.|.|\xe2\x82", false},
		{"bytes that are no character", "\x80\xffa", nil, "\x80|\xff|a", false},
		{"a stop string", "one\n\ntwo", []string{"\n\n"}, "o|n|e|.|.", true},
		{"almost a stop string", "a\nb", []string{"\n\n"}, "a|.|\nb", false},
		{"the earliest of two", "abcd", []string{"cd", "b"}, "a|.", true},
		{"of two that end together, the one that begins first", "abc", []string{"bc", "abc"}, ".|.|.", true},
		{"a stop string at the start", "xab", []string{"x"}, ".", true},
		{"one that begins again", "aaab", []string{"aab"}, ".|.|a|.", true},
		{"held back to the end", "ab", []string{"abc"}, ".|.|ab", false},
		{"held back for the first of two", "abz", []string{"bx", "cy"}, "a|.|bz", false},
		{"an empty stop string", "ab", []string{""}, "a|b", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := generate.NewStream(spell, nil, c.stops)
			var parts []string
			add := func(text []byte) {
				if len(text) == 0 {
					parts = append(parts, ".")
					return
				}
				parts = append(parts, string(text))
			}
			stopped := false
			for i := 0; i < len(c.text) && !stopped; i++ {
				var text []byte
				text, stopped = s.Push(int32(c.text[i]))
				add(text)
			}
			if rest := s.Rest(); len(rest) > 0 {
				add(rest)
			}
			if got := strings.Join(parts, "|"); got != c.want || stopped != c.stopped {
				t.Errorf("%q, stopped %v, want %q, %v", got, stopped, c.want, c.stopped)
			}
			if text, again := s.Push('!'); len(text) > 0 || !again || len(s.Rest()) > 0 {
				t.Error("an ended stream goes on")
			}
		})
	}
}

// TestStopsInOneToken: a token that contains several stop strings ends at the first one in the text.
func TestStopsInOneToken(t *testing.T) {
	decode := func(dst []byte, ids []int32) []byte {
		for _, id := range ids {
			dst = append(dst, []string{"ab", "cdef"}[id]...)
		}
		return dst
	}
	for _, stops := range [][]string{{"d", "f"}, {"f", "d"}, {"f", "e", "bcd"}} {
		s := generate.NewStream(decode, nil, stops)
		first, _ := s.Push(0)
		got := string(first)
		rest, stopped := s.Push(1)
		want := map[bool]string{true: "abc", false: "a"}[len(stops) == 2]
		if got += string(rest); got != want || !stopped {
			t.Errorf("stops %q: %q, stopped %v, want %q", stops, got, stopped, want)
		}
	}
}

// TestStreamContext: the spelling of a token depends on those before it, including the prompt's.
func TestStreamContext(t *testing.T) {
	for _, c := range []struct {
		prompt []int32
		want   string
	}{{nil, "the cats"}, {[]int32{3}, " the cats"}} {
		s := generate.NewStream(words, c.prompt, nil)
		got, want := "", c.want
		for _, id := range []int32{0, 1, 2} {
			text, _ := s.Push(id)
			got += string(text)
		}
		for range 50 { // far beyond the context that is kept
			text, _ := s.Push(3)
			got, want = got+string(text), want+" sat"
		}
		if got += string(s.Rest()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
