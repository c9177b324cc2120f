package main

import (
	"bytes"
	"testing"
)

func TestShown(t *testing.T) {
	var out bytes.Buffer
	text := "\ta\r\n\x1b[2J\x00é\x7f\xff"
	if n, err := (shown{&out}).Write([]byte(text)); n != len(text) || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if want := "\ta\\x0d\n\\x1b[2J\\x00é\\x7f\xff"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if w := forPeople(&out); w != &out {
		t.Errorf("%T for what is no terminal", w)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0 documents", 1: "1 document", 2: "2 documents"} {
		if got := count(n, "document"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
