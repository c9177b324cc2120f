package data

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/text/unicode/norm"
)

// hfPart is a normalizer or a pre-tokenizer.
type hfPart struct {
	Type          string     `json:"type"`
	Normalizers   []hfPart   `json:"normalizers"`
	PreTokenizers []hfPart   `json:"pretokenizers"`
	Prepend       string     `json:"prepend"`
	Pattern       *hfPattern `json:"pattern"`
	Content       string     `json:"content"`
	Behavior      string     `json:"behavior"`
	Invert        bool       `json:"invert"`

	AddPrefixSpace   *bool  `json:"add_prefix_space"`
	UseRegex         *bool  `json:"use_regex"`
	Replacement      string `json:"replacement"`
	PrependScheme    string `json:"prepend_scheme"`
	Split            *bool  `json:"split"`
	IndividualDigits bool   `json:"individual_digits"`
}

type hfPattern struct {
	String *string
	Regex  *string
}

// preTokenizer sets how words are split. byteLevel says that the vocabulary is written in GPT-2's
// alphabet of bytes.
func (t *bpe) preTokenizer(p *hfPart) (byteLevel bool, err error) {
	if p == nil {
		return false, nil
	}
	parts := []hfPart{*p}
	if p.Type == "Sequence" {
		parts = p.PreTokenizers
	}
	for i, part := range parts {
		var next splitter
		switch part.Type {
		case "ByteLevel":
			if i != len(parts)-1 {
				return false, errors.New("a Sequence that continues after ByteLevel is not supported")
			}
			if part.AddPrefixSpace == nil || *part.AddPrefixSpace { // the field's default is true
				if i > 0 {
					return false, errors.New("ByteLevel with add_prefix_space inside a Sequence is not supported")
				}
				t.normalize = prefixSpace
			}
			byteLevel = true
			if part.UseRegex == nil || *part.UseRegex {
				next, err = splitPattern(patternGPT2, false)
			}
		case "Metaspace":
			if i > 0 {
				return false, errors.New("Metaspace after another pre-tokenizer is not supported")
			}
			next, err = t.metaspace(part)
		case "Split":
			next, err = part.splitter()
		case "Digits":
			next = splitDigits(part.IndividualDigits)
		default:
			err = fmt.Errorf("type %q is not supported: there are ByteLevel, Digits, Metaspace, Split and Sequence", part.Type)
		}
		switch {
		case err != nil:
			return false, err
		case next == nil:
		case i == 0:
			t.split = next
		default:
			t.split = inSequence(t.split, next)
		}
	}
	return byteLevel, nil
}

// splitter makes a Split pre-tokenizer. The matches are the words; with behavior Removed and
// invert, what lies between them is dropped.
func (p hfPart) splitter() (splitter, error) {
	removeGaps := p.Behavior == "Removed" && p.Invert
	if p.Behavior != "Isolated" && !removeGaps {
		return nil, fmt.Errorf("Split with behavior %q and invert %v is not supported", p.Behavior, p.Invert)
	}
	switch {
	case p.Pattern != nil && p.Pattern.Regex != nil:
		return splitPattern(*p.Pattern.Regex, removeGaps)
	case p.Pattern != nil && p.Pattern.String != nil && *p.Pattern.String != "":
		return splitText([]byte(*p.Pattern.String), removeGaps), nil
	}
	return nil, errors.New("Split has no pattern")
}

// metaspace replaces spaces, and may put one in front.
func (t *bpe) metaspace(p hfPart) (splitter, error) {
	if p.Replacement != metaspace {
		return nil, fmt.Errorf("Metaspace with replacement %q is not supported", p.Replacement)
	}
	scheme := p.PrependScheme
	if scheme == "" { // files of older versions
		scheme = "always"
		if p.AddPrefixSpace != nil && !*p.AddPrefixSpace {
			scheme = "never"
		}
	}
	if scheme != "always" && scheme != "first" && scheme != "never" {
		return nil, fmt.Errorf("Metaspace with prepend_scheme %q is not supported", scheme)
	}
	t.normalize = func(dst, text []byte, first bool) []byte {
		starts := bytes.HasPrefix(text, []byte(" ")) || bytes.HasPrefix(text, []byte(metaspace))
		if !starts && (scheme == "always" || scheme == "first" && first) {
			dst = append(dst, metaspace...)
		}
		return appendReplaced(dst, text, " ", metaspace)
	}
	if p.Split != nil && !*p.Split {
		return keepWhole, nil
	}
	return splitMetaspaces, nil
}

func prefixSpace(dst, text []byte, _ bool) []byte {
	if len(text) > 0 && text[0] != ' ' {
		dst = append(dst, ' ')
	}
	return append(dst, text...)
}

// normalizer makes the chain of p followed by after, which may be nil.
func normalizer(p *hfPart, after func(dst, text []byte, first bool) []byte) (func(dst, text []byte, first bool) []byte, error) {
	if p == nil {
		return after, nil
	}
	parts := []hfPart{*p}
	if p.Type == "Sequence" {
		parts = p.Normalizers
	}
	for _, part := range slices.Backward(parts) {
		step, err := part.normalizer()
		if err != nil {
			return nil, err
		}
		if after == nil {
			after = step
			continue
		}
		next := after
		after = func(dst, text []byte, first bool) []byte {
			return next(dst, step(nil, text, first), first)
		}
	}
	return after, nil
}

func (p hfPart) normalizer() (func(dst, text []byte, first bool) []byte, error) {
	form := func(f norm.Form) func(dst, text []byte, _ bool) []byte {
		return func(dst, text []byte, _ bool) []byte { return f.Append(dst, text...) }
	}
	switch p.Type {
	case "NFC":
		return form(norm.NFC), nil
	case "NFD":
		return form(norm.NFD), nil
	case "NFKC":
		return form(norm.NFKC), nil
	case "NFKD":
		return form(norm.NFKD), nil
	case "Prepend":
		return func(dst, text []byte, _ bool) []byte { return append(append(dst, p.Prepend...), text...) }, nil
	case "Replace":
		if p.Pattern == nil || p.Pattern.String == nil || *p.Pattern.String == "" {
			return nil, errors.New("Replace with a pattern other than a String is not supported")
		}
		return func(dst, text []byte, _ bool) []byte {
			return appendReplaced(dst, text, *p.Pattern.String, p.Content)
		}, nil
	}
	return nil, fmt.Errorf("type %q is not supported: there are NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence", p.Type)
}

func appendReplaced(dst, text []byte, old, with string) []byte {
	for {
		i := bytes.Index(text, []byte(old))
		if i < 0 {
			return append(dst, text...)
		}
		dst = append(append(dst, text[:i]...), with...)
		text = text[i+len(old):]
	}
}
