package data

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestListFiles(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"b.go": "b", "a/z.go": "z", "a.go": "a", "a/testdata/t.go": "t", "a/n.txt": "n",
		"c.go.gz": "c", "d.go.zst": "d", "e.txt.gz": "e",
	})
	for _, test := range []struct {
		name             string
		include, exclude []string
		want             []string
	}{
		{"all", nil, nil, []string{"a.go", "a/n.txt", "a/testdata/t.go", "a/z.go", "b.go", "c.go.gz", "d.go.zst", "e.txt.gz"}},
		{"inner name", []string{"**/*.go"}, []string{"**/testdata/**"}, []string{"a.go", "a/z.go", "b.go", "c.go.gz", "d.go.zst"}},
		{"outer name", []string{"*.gz"}, nil, []string{"c.go.gz", "e.txt.gz"}},
		{"exclude inner name", nil, []string{"**/*.go"}, []string{"a/n.txt", "e.txt.gz"}},
		{"two patterns", []string{"b.go", "a/*.txt"}, nil, []string{"a/n.txt", "b.go"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			files, _, err := listFiles(t.Context(), dir, "", TextConfig{Include: test.include, Exclude: test.exclude})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range files {
				got = append(got, f.name)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}

	_, _, err := listFiles(t.Context(), dir, "", TextConfig{Include: []string{"*.md"}})
	checkError(t, err, dir, `data.text: no file in DIR matches include ["*.md"] without matching exclude [] (0 links and special files were left out): change the patterns or the path`)
}

func TestListFilesFollowsNoLink(t *testing.T) {
	outside := writeFiles(t, map[string]string{"secret.txt": "x"})
	dir := writeFiles(t, map[string]string{"real.txt": "y"})
	for name, target := range map[string]string{"out.txt": outside + "/secret.txt", "folder.txt": outside, "twice.txt": "real.txt", "gone.txt": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	link := filepath.Join(t.TempDir(), "root")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	files, notRegular, err := listFiles(t.Context(), link, "", TextConfig{Include: []string{"*.txt"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].name != "real.txt" || notRegular != 4 {
		t.Errorf("files %v and %d links, want real.txt and 4", files, notRegular)
	}
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(old)
	mustPrepare(t, testConfig(t, dir))
	if !strings.Contains(log.String(), "links and special files are not read") || !strings.Contains(log.String(), "number=4") {
		t.Errorf("logged are\n%s", log.String())
	}
}

// TestListFilesLeavesOutShards: the shards that are made from the text may be in its folder.
func TestListFilesLeavesOutShards(t *testing.T) {
	dir := writeFiles(t, map[string]string{"a.txt": "x", "out/shards/b": "x", "out/shards.partial/c": "x", "out/shards.lock": "", "out/shards2/d": "x", "shards/e": "x"})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "out"), link); err != nil {
		t.Skip(err)
	}
	t.Chdir(filepath.Join(dir, "out"))
	for _, shards := range []string{filepath.Join(dir, "out", "shards"), filepath.Join(link, "shards"), "shards", "./shards/"} {
		for _, root := range []string{dir, ".."} {
			files, _, err := listFiles(t.Context(), root, shards, TextConfig{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range files {
				got = append(got, f.name)
			}
			if diff := cmp.Diff([]string{"a.txt", "out/shards2/d", "shards/e"}, got); diff != "" {
				t.Errorf("%s in %s: %s", shards, root, diff)
			}
		}
	}
	for _, shards := range []string{"", t.TempDir(), filepath.Join(dir, "none", "shards"), filepath.Dir(dir)} {
		if files, _, err := listFiles(t.Context(), dir, shards, TextConfig{}); err != nil || len(files) != 6 {
			t.Errorf("with shards in %q: %d files, %v", shards, len(files), err)
		}
	}
}

func TestRead(t *testing.T) {
	const lines = "{\"text\": \"one\"}\r\n\n{\"id\": 3, \"text\": \"three\\n\\ud83d\\ude42\"}"
	dir := writeFiles(t, map[string]string{
		"a.txt": "plain\n", "b.txt.gz": "zipped", "c.txt.zst": "zstandard", "d.jsonl": lines, "e.jsonl.gz": lines,
		"f.json.gz": lines, "g.ndjson": lines, "h.jsonl": "\uFEFF{\"text\": \"\uFEFFmarked\"}\n",
	})
	files, _, err := listFiles(t.Context(), dir, "", TextConfig{JSONL: []string{"**/*.json"}})
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]string
	for _, f := range files {
		err := f.read(context.Background(), "text", 0, func(d rawDocument) error {
			text, err := d.text("text")
			got = append(got, [2]string{d.name, string(text)})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := [][2]string{
		{"a.txt", "plain\n"}, {"b.txt.gz", "zipped"}, {"c.txt.zst", "zstandard"},
		{"d.jsonl:1", "one"}, {"d.jsonl:2", ""}, {"d.jsonl:3", "three\n🙂"},
		{"e.jsonl.gz:1", "one"}, {"e.jsonl.gz:2", ""}, {"e.jsonl.gz:3", "three\n🙂"},
		{"f.json.gz:1", "one"}, {"f.json.gz:2", ""}, {"f.json.gz:3", "three\n🙂"}, {"g.ndjson", lines},
		{"h.jsonl:1", "\uFEFFmarked"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestUnnamedJSONL: JSONL that is read as one document is warned of once.
func TestUnnamedJSONL(t *testing.T) {
	for _, test := range []struct {
		files map[string]string
		jsonl []string
		want  string
	}{
		{map[string]string{"a.json": "\uFEFF{\"text\": \"x\"}\n{", "b.json": `{"text": "y"}`}, nil, ".json field=text"},
		{map[string]string{"a.json": "{\n\"text\": \"x\"}", "b.json": `{"text": 1}`, "c.json": `{"body": "y"}`, "d.txt": "text", "e.jsonl": `{"text": "y"}`}, nil, ""},
		{map[string]string{"a.json": `{"text": "x"}`}, []string{"*.json"}, ""},
	} {
		var log bytes.Buffer
		old := slog.Default()
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		defer slog.SetDefault(old)
		c := testConfig(t, writeFiles(t, test.files))
		c.Text.JSONL = test.jsonl
		mustPrepare(t, c)
		if got := log.String(); strings.Count(got, "name such files in data.text.jsonl") != min(1, len(test.want)) || !strings.Contains(got, test.want) {
			t.Errorf("%v: logged are\n%s", test.files, got)
		}
	}
	c := testConfig(t, writeFiles(t, map[string]string{"a.txt": "x"}))
	c.Text.JSONL = []string{"*.json"}
	_, err := Prepare(context.Background(), c, nil)
	checkError(t, err, c.Text.Path, `data.text.jsonl: none of the files that are read from DIR (1) matches ["*.json"]: change the patterns`)
}

func TestBadText(t *testing.T) {
	long := strings.Repeat("some text. ", 1000)
	for _, test := range []struct{ name, content, want string }{
		{"x.jsonl", "{\"text\": \"ok\"}\n{\"text\": 1", "data.text: DIR/x.jsonl:2: bad JSON: unexpected end of JSON input"},
		{"x.jsonl", "{\"text\": \"ok\"}\n\n[1]", "data.text: DIR/x.jsonl:3: bad JSON: is a JSON array, not an object"},
		{"x.jsonl.gz", `{"b": 1, "a": "x"}`, `data.text: DIR/x.jsonl.gz:1: no field "text" among ["a" "b"]: set data.text.jsonl_field`},
		{"x.jsonl", `{"text": 1}`, `data.text: DIR/x.jsonl:1: field "text" is not a string: set data.text.jsonl_field`},
		{"x.jsonl", `{"text": null}`, `data.text: DIR/x.jsonl:1: field "text" is not a string: set data.text.jsonl_field`},
		{"x.jsonl", "{\"text\": \"\xff\"}", "data.text: DIR/x.jsonl:1: the line is not valid UTF-8: fix it, or leave the file out with data.text.exclude"},
		{"x.jsonl", `{"text": "\ud83d \ufffd"}`, `data.text: DIR/x.jsonl:1: field "text" has half of a surrogate pair (\ud800 to \udfff), which is not a character: fix the line`},
		{"x.gz:raw", "", "data.text: DIR/x.gz: unexpected EOF"},
		{"x.gz:raw", "plain", "data.text: DIR/x.gz: unexpected EOF"},
		{"x.gz:raw", "plain text in a .gz", "data.text: DIR/x.gz: gzip: invalid header"},
		{"x.gz:raw", string(compressed(t, ".gz", long)[:40]), "data.text: DIR/x.gz: unexpected EOF"},
		{"x.zst:raw", "plain text in a .zst", "data.text: DIR/x.zst: invalid input: magic number mismatch"},
		{"x.zst:raw", string(compressed(t, ".zst", long)[:30]), "data.text: DIR/x.zst: unexpected EOF"},
	} {
		name, raw := strings.CutSuffix(test.name, ":raw")
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			content := []byte(test.content)
			if !raw {
				content = compressed(t, name, test.content)
			}
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
			c := testConfig(t, dir)
			_, err := Prepare(context.Background(), c, nil)
			checkError(t, err, dir, test.want)
			if _, err := os.Stat(c.Shards); !os.IsNotExist(err) {
				t.Errorf("a failed prepare left its folder: %v", err)
			}
			if _, err := os.Stat(c.Shards + ".partial"); !os.IsNotExist(err) {
				t.Errorf("a failed prepare left its work: %v", err)
			}
		})
	}
}
