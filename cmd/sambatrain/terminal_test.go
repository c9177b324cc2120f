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
