package main

import (
	"errors"
	"testing"
)

func TestFlagNames(t *testing.T) {
	for text, want := range map[string]string{
		"data.text.path: no folder x: point at another folder of text with --set data.text.path=DIR": "--text: no folder x: point at another folder of text with --text DIR",
		"data.shards: environment variable X in $X is not set: --set data.shards=DIR":                "--shards: environment variable X in $X is not set: --shards DIR",
		"data.tokenizer: environment variable X in $X is not set: --set data.tokenizer=DIR":          "--tokenizer: environment variable X in $X is not set: --tokenizer DIR",
		"data.text.jsonl: none; or data.text.jsonl_field":                                            "--jsonl: none; or --jsonl-field",
	} {
		if got := flagNames(errors.New(text)).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
