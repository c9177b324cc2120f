package main

import "strings"

// flagError is an error about a recipe's key, expressed in terms of a command's flags.
type flagError struct {
	text string
	error
}

func (e *flagError) Error() string { return e.text }
func (e *flagError) Unwrap() error { return e.error }

// flagNames replaces the keys of a recipe by flags in an error of a command that takes no recipe.
func flagNames(err error) error {
	text := strings.NewReplacer(
		"--set data.text.path=", "--text ", "--set data.shards=", "--shards ", "--set data.tokenizer=", "--tokenizer ",
		"data.text:", "--text:", "data.text.path", "--text", "data.text.include", "--include",
		"data.text.exclude", "--exclude", "data.text.jsonl_field", "--jsonl-field", "data.text.jsonl", "--jsonl", "data.text.validation", "--validation", "data.shards", "--shards",
		"data.tokenizer", "--tokenizer", "data.validation_fraction", "--validation-fraction",
		"vocab_size", "--vocab-size", "run.device", "--device", "run.dtype", "--dtype", "run.threads", "--threads",
	).Replace(err.Error())
	return &flagError{text, err}
}
