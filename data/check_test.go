package data

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPrepareAllChecksFirst: what is wrong with a later source of a mixture is reported before text of
// an earlier one is prepared.
func TestPrepareAllChecksFirst(t *testing.T) {
	texts := map[string]string{}
	for i := range 40 {
		texts[strings.Repeat("x", i+1)+".txt"] = strings.Repeat("text ", i+1)
	}
	for _, test := range []struct {
		name string
		edit func(t *testing.T, c *Config, second *WeightedSource) // DIR is second.Text.Path
		want string
	}{
		{"no folder", func(t *testing.T, _ *Config, s *WeightedSource) { s.Text.Path += "/none" },
			"data.text.path: no folder DIR: point at another folder of text with --set data.text.path=DIR"},
		{"no text and no shards", func(t *testing.T, _ *Config, s *WeightedSource) { s.Text.Path, s.Shards = "", "none" },
			"data.shards: no folder none, and data.text.path is empty: name a folder of shards, or one of text to make them from"},
		{"no file", func(t *testing.T, _ *Config, s *WeightedSource) { s.Text.Include = []string{"*.md"} },
			`data.text: no file in DIR matches include ["*.md"] without matching exclude [] (0 links and special files were left out): change the patterns or the path`},
		{"a pattern", func(t *testing.T, _ *Config, s *WeightedSource) { s.Text.JSONL = []string{"*.json"} },
			`data.text.jsonl: none of the files that are read from DIR (40) matches ["*.json"]: change the patterns`},
		{"another field", func(t *testing.T, _ *Config, s *WeightedSource) {
			s.Text.Path = writeFiles(t, map[string]string{"a.jsonl": `{"body": "text"}`})
		}, `data.text: DIR/a.jsonl:1: no field "text" among ["body"]: set data.text.jsonl_field`},
		{"not what its name says", func(t *testing.T, _ *Config, s *WeightedSource) {
			s.Text.Path = writeFiles(t, map[string]string{"a.jsonl.zst": ""})
			if err := os.WriteFile(filepath.Join(s.Text.Path, "a.jsonl.zst"), []byte("plain text"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "data.text: DIR/a.jsonl.zst: invalid input: magic number mismatch"},
		{"no field, nothing held out", func(t *testing.T, c *Config, s *WeightedSource) {
			c.ValidationFraction = 0
			s.Text.Path = writeFiles(t, map[string]string{"a.jsonl": `{"body": "text"}`})
		}, `data.text: DIR/a.jsonl:1: no field "text" among ["body"]: set data.text.jsonl_field`},
		{"no field in validation files", func(t *testing.T, c *Config, s *WeightedSource) {
			s.Text.Path = writeFiles(t, map[string]string{"a.txt": "text", "b.jsonl": `{"body": "text"}`})
			s.Text.Validation = []string{"b.*"}
		}, `data.text: DIR/b.jsonl:1: no field "text" among ["body"]: set data.text.jsonl_field`},
		{"empty", func(t *testing.T, _ *Config, s *WeightedSource) {
			s.Text.Path = writeFiles(t, map[string]string{"a.txt": ""})
		}, "data.text: there is no text in what was read from DIR (files: 1, empty documents: 1): point data.text.path at other text"},
		{"no validation split", func(t *testing.T, c *Config, s *WeightedSource) {
			s.Text.Path = writeFiles(t, map[string]string{"a.txt": "a"})
		}, "data.validation_fraction: no document (of 1) fell into the validation split at 0.3: raise it, or name files in data.text.validation"},
		{"shards of other settings", func(t *testing.T, c *Config, s *WeightedSource) {
			other := c.sources()[1].config
			other.Text.Exclude = []string{"none"}
			mustPrepare(t, other)
		}, "data.shards: SHARDS was made from other settings (text.exclude was [none], is []): choose another folder or delete it"},
		{"short shards", func(t *testing.T, c *Config, s *WeightedSource) {
			mustPrepare(t, c.sources()[1].config)
			c.SeqLen = 1 << 20
		}, ""},
		{"a missing shard", func(t *testing.T, c *Config, s *WeightedSource) {
			m := mustPrepare(t, c.sources()[1].config)
			if err := os.Remove(filepath.Join(s.Shards, m.Train.Shards[0].File)); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"no folder to write to", func(t *testing.T, c *Config, s *WeightedSource) {
			s.Shards = filepath.Join(writeFiles(t, map[string]string{"file": ""}), "file", "shards")
		}, ""},
		{"the same shards", func(t *testing.T, c *Config, s *WeightedSource) {
			t.Setenv("SHARDS_HERE", c.Mixture[0].Shards)
			s.Shards = "$SHARDS_HERE"
		}, "data.mixture[1].shards: $SHARDS_HERE is the folder of data.mixture[0], too: add up the weights"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := DefaultConfig()
			c.SeqLen, c.ValidationFraction = 16, 0.3
			for _, name := range []string{"first", "second"} {
				s := WeightedSource{Name: name, Weight: 1, Shards: filepath.Join(t.TempDir(), name)}
				s.Text.Path = writeFiles(t, texts)
				c.Mixture = append(c.Mixture, s)
			}
			second := &c.Mixture[1]
			test.edit(t, &c, second)
			err := PrepareAll(context.Background(), c, func(p Progress) { t.Errorf("prepared %+v", p) })
			if _, statErr := os.Stat(c.Mixture[0].Shards); !os.IsNotExist(statErr) {
				t.Errorf("the first source was prepared: %v", statErr)
			}
			if test.want == "" { // the text is another test's
				if err == nil || !strings.HasPrefix(err.Error(), "data.mixture[1] (second): data.") {
					t.Errorf("error is %v", err)
				}
				return
			}
			want := test.want
			if !strings.HasPrefix(want, "data.mixture[1].") {
				want = "data.mixture[1] (second): " + strings.ReplaceAll(want, "SHARDS", second.Shards)
			}
			checkError(t, err, second.Text.Path, want)
		})
	}
}

// TestPrepareAll: sources that are in order are prepared, and again from what exists.
func TestPrepareAll(t *testing.T) {
	c := DefaultConfig()
	c.SeqLen, c.ValidationFraction = 4, 0.3
	for _, name := range []string{"first", "second"} {
		s := WeightedSource{Name: name, Weight: 1, Shards: filepath.Join(t.TempDir(), "new", name)}
		s.Text.Path = writeFiles(t, corpus(30))
		c.Mixture = append(c.Mixture, s)
	}
	for range 2 {
		if err := PrepareAll(context.Background(), c, nil); err != nil {
			t.Fatal(err)
		}
		mustOpen(t, c, Train)
		mustOpen(t, c, Validation)
		if left, err := os.ReadDir(filepath.Dir(c.Mixture[0].Shards)); err != nil || len(left) != 1 {
			t.Errorf("beside the shards are %v, error %v", left, err)
		}
	}
}
