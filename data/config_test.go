package data

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

func TestConfigFromYAML(t *testing.T) {
	const section = `
text: {path: $GOROOT/src, include: ["**/*.go"], exclude: ["**/testdata/**"], jsonl_field: body}
shards: runs/data/go-source
tokenizer: bytes
seq_len: 512
validation_fraction: 0.01
seed: 3407
skip_verify: true
`
	var got Config
	if err := yaml.UnmarshalWithOptions([]byte(section), &got, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	want := Config{
		Text:   TextConfig{Path: "$GOROOT/src", Include: []string{"**/*.go"}, Exclude: []string{"**/testdata/**"}, JSONLField: "body"},
		Shards: "runs/data/go-source", Tokenizer: "bytes", SeqLen: 512, ValidationFraction: 0.01, Seed: 3407, SkipVerify: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"shards", func(c *Config) { c.Shards = "" }, "data.shards: is empty: name the folder of token shards"},
		{"tokenizer", func(c *Config) { c.Tokenizer = "gpt2" }, `data.tokenizer: no tokenizer "gpt2": use bytes, or the path of a tokenizer.json or tokenizer.model`},
		{"seq_len", func(c *Config) { c.SeqLen = 0 }, "data.seq_len: must be at least 1, is 0"},
		{"long seq_len", func(c *Config) { c.SeqLen = 1<<24 + 1 }, "data.seq_len: must be at most 16777216, is 16777217"},
		{"fraction 1", func(c *Config) { c.ValidationFraction = 1 }, "data.validation_fraction: must be at least 0 and below 1, is 1"},
		{"fraction below 0", func(c *Config) { c.ValidationFraction = -0.5 }, "data.validation_fraction: must be at least 0 and below 1, is -0.5"},
		{"jsonl_field", func(c *Config) { c.Text.JSONLField = "" }, "data.text.jsonl_field: is empty: name the field of a JSONL line that holds the text"},
		{"include", func(c *Config) { c.Text.Include = []string{"*", "[a"} }, `data.text.include[1]: bad pattern "[a": want a form such as **/*.txt`},
		{"exclude", func(c *Config) { c.Text.Exclude = []string{"{a"} }, `data.text.exclude[0]: bad pattern "{a": want a form such as **/*.txt`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := DefaultConfig()
			c.Shards, c.Text.Path = "shards", "text"
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
			test.edit(&c)
			checkError(t, c.Validate(), "", test.want)
		})
	}
}

func TestFolder(t *testing.T) {
	dir := writeFiles(t, map[string]string{"file.txt": "x", "go/src/a.go": "package a"})
	t.Setenv("TEXT", dir)
	t.Setenv("EMPTY_HERE", "")
	t.Setenv("GOROOT", filepath.Join(dir, "go"))
	for _, test := range []struct{ path, want, err string }{
		{path: dir, want: "DIR"},
		{path: "$TEXT", want: "DIR"},
		{path: "${TEXT}/go", want: "DIR/go"},
		{path: "$GOROOT/src", want: "DIR/go/src"},
		{path: "$EMPTY_HERE", err: "data.text.path: environment variable EMPTY_HERE in $EMPTY_HERE is not set or empty: set it, or point at another folder with --set data.text.path=DIR"},
		{path: "$NOT_SET_HERE/x", err: "data.text.path: environment variable NOT_SET_HERE in $NOT_SET_HERE/x is not set or empty: set it, or point at another folder with --set data.text.path=DIR"},
		{path: dir + "/none", err: "data.text.path: no folder DIR/none: point at another folder of text with --set data.text.path=DIR"},
		{path: "$TEXT/none", err: "data.text.path: no folder DIR/none (from $TEXT/none): point at another folder of text with --set data.text.path=DIR"},
		{path: "$GOROOT/none", err: "data.text.path: no folder DIR/go/none (from $GOROOT/none): install Go, or point at another folder of text with --set data.text.path=DIR"},
		{path: "$TEXT/file.txt", err: "data.text.path: DIR/file.txt (from $TEXT/file.txt) is a file: name its folder, and pick the file with data.text.include"},
	} {
		t.Run(test.path, func(t *testing.T) {
			got, err := TextConfig{Path: test.path}.folder()
			if test.err != "" {
				checkError(t, err, dir, test.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got = strings.ReplaceAll(got, dir, "DIR"); got != test.want {
				t.Errorf("folder is %s, want %s", got, test.want)
			}
		})
	}
}

func TestGOROOTFromGoCommand(t *testing.T) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skip("no go command")
	}
	t.Setenv("GOROOT", "")
	os.Unsetenv("GOROOT")
	got, err := expand("data.text.path", "$GOROOT/src")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(strings.TrimSpace(string(out)), "src"); got != want {
		t.Errorf("$GOROOT/src is %s, want %s", got, want)
	}
}
