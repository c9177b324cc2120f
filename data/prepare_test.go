package data

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrepareRoundTrip(t *testing.T) {
	files := corpus(100)
	files["empty.txt"] = ""
	files["more.jsonl.zst"] = "{\"text\": \"from a line\"}\n\n{\"text\": \"\"}\n{\"text\": \"and another\"}\n"
	var want []string
	for name, text := range files {
		if name != "more.jsonl.zst" && name != "empty.txt" {
			want = append(want, text)
		}
	}
	want = append(want, "from a line", "and another")

	c := testConfig(t, writeFiles(t, files))
	c.ValidationFraction = 0.2
	m := mustPrepare(t, c)
	if err := verify(c.Shards); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, split := range []Split{Train, Validation} {
		d := mustOpen(t, c, split)
		documents := documents(t, d)
		got = append(got, documents...)

		info := m.Split(split)
		text := strings.Join(documents, "")
		var counts [256]int64
		for i := range len(text) {
			counts[text[i]]++
		}
		if info.Documents != int64(len(documents)) || info.Bytes != int64(len(text)) || info.Tokens != d.Tokens() || info.Tokens != info.Bytes+info.Documents {
			t.Errorf("%s: manifest says %d documents, %d bytes, %d tokens; the shards hold %d, %d, %d",
				split, info.Documents, info.Bytes, info.Tokens, len(documents), len(text), d.Tokens())
		}
		if !slices.Equal(info.ByteCounts, counts[:]) {
			t.Errorf("%s: byte_counts differ", split)
		}
		longest := slices.MaxFunc(documents, func(a, b string) int { return len(a) - len(b) })
		if info.LongestDocument != int64(len(longest))+1 {
			t.Errorf("%s: longest_document is %d, want %d", split, info.LongestDocument, len(longest)+1)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := m.Source; s.EmptyDocuments != 3 || s.Files != 103 || s.Folder != c.Text.Path {
		t.Errorf("source is %+v, want 3 empty documents of 103 files", s)
	}
	if len(m.Train.Shards) < 2 {
		t.Errorf("%d shards test no border between shards", len(m.Train.Shards))
	}
}

// TestNamesAreText: shards hold names of files that are not UTF-8 in a form that other programs can read.
func TestNamesAreText(t *testing.T) {
	p := preparer{tok: byteTokenizer{}, layout: smallLayout}
	c := &chunk{raw: []rawDocument{{name: "a\xff/\xfe\xfd.txt", data: []byte("x")}, {name: "é.txt:3", data: []byte("y")}}}
	p.tokenize(c)
	var got []string
	for _, d := range c.documents {
		got = append(got, d.rows[0].document)
	}
	if diff := cmp.Diff([]string{"a\uFFFD/\uFFFD.txt", "é.txt:3"}, got); diff != "" || c.err != nil {
		t.Error(diff, c.err)
	}
}

func TestPrepareSplitsByContent(t *testing.T) {
	files := corpus(300)
	for i := range 300 {
		files[fmt.Sprintf("copy%03d.txt", i)] = files[fmt.Sprintf("doc%03d.txt", i)]
	}
	c := testConfig(t, writeFiles(t, files))
	c.ValidationFraction = 0.25
	c.Seed = 1
	mustPrepare(t, c)
	train, validation := documents(t, mustOpen(t, c, Train)), documents(t, mustOpen(t, c, Validation))
	for _, d := range validation {
		if slices.Contains(train, d) {
			t.Errorf("document %.20q is on both sides", d)
		}
	}
	if share := float64(len(validation)) / 601; share < 0.15 || share > 0.35 {
		t.Errorf("validation has %.2f of the documents, want about 0.25", share)
	}
}

func TestPrepareValidationFiles(t *testing.T) {
	folder := writeFiles(t, map[string]string{
		"train/a.txt": "same", "train/b.jsonl": `{"text": "line"}`, "valid/a.txt": "same", "valid/b.jsonl.gz": `{"text": "held"}`, "test/a.txt": "tested",
	})
	c := testConfig(t, folder)
	c.Text.Exclude = []string{"test/**"}
	c.Text.Validation = []string{"valid/*.txt", "**/b.jsonl.gz"}
	c.ValidationFraction, c.SeqLen = 0.999, 4 // the fraction must not matter
	m := mustPrepare(t, c)
	if diff := cmp.Diff([]string{"same", "line"}, documents(t, mustOpen(t, c, Train))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"same", "held"}, documents(t, mustOpen(t, c, Validation))); diff != "" {
		t.Error(diff)
	}
	c.ValidationFraction = 0.5
	if again := mustPrepare(t, c); !cmp.Equal(m, again) {
		t.Error("an unused fraction made other shards")
	}

	for _, test := range []struct {
		patterns []string
		want     string
	}{
		{[]string{"val/**"}, `data.text.validation: none of the files that are read from DIR (5) matches ["val/**"]: change the patterns, add those files to data.text.include, or leave data.text.validation empty ([]), which holds out a share of all documents`},
		{[]string{"**"}, `data.text.validation: all files that are read from DIR (5) match ["**"]: leave some for training`},
		{[]string{"empty.txt"}, `data.text.validation: no document with text in DIR is in a file that matches ["empty.txt"]: change the patterns`},
		{[]string{"["}, `data.text.validation[0]: bad pattern "[": want a form such as **/*.txt`},
	} {
		c := testConfig(t, folder)
		c.Text.Validation = test.patterns
		if test.patterns[0] == "empty.txt" {
			if err := os.WriteFile(filepath.Join(folder, "empty.txt"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_, err := Prepare(context.Background(), c, nil)
		checkError(t, err, folder, test.want)
	}
}

func TestPrepareIsDeterministic(t *testing.T) {
	files := corpus(2500) // more than a chunk
	folder := writeFiles(t, files)
	var first Manifest
	for i, procs := range []int{1, 2, 7} {
		c := testConfig(t, folder)
		c.ValidationFraction = 0.1
		old := runtime.GOMAXPROCS(procs)
		m := mustPrepare(t, c)
		runtime.GOMAXPROCS(old)
		if i == 0 {
			first = m
		} else if diff := cmp.Diff(first, m); diff != "" {
			t.Errorf("on %d cores the shards differ: %s", procs, diff)
		}
	}
}

func TestPrepareReuses(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(30)))
	first := mustPrepare(t, c)
	c.Seed, c.SeqLen = 1, 8           // not settings of the shards
	c.Text.Include = []string{"**/*"} // as none
	again, err := Prepare(context.Background(), c, func(Progress) { t.Error("the shards are written again") })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Error(diff)
	}

	for _, test := range []struct {
		name string
		edit func(*Config)
		want string
	}{
		{"path", func(c *Config) { c.Text.Path = "/other" }, "text.path was TEXT, is /other"},
		{"include", func(c *Config) { c.Text.Include = []string{"*.go"} }, "text.include was [], is [*.go]"},
		{"exclude", func(c *Config) { c.Text.Exclude = []string{"*.go"} }, "text.exclude was [], is [*.go]"},
		{"jsonl", func(c *Config) { c.Text.JSONL = []string{"a*"} }, "text.jsonl was [], is [a*]"},
		{"validation", func(c *Config) { c.Text.Validation = []string{"a*"} }, "text.validation was [], is [a*]"},
		{"two", func(c *Config) { c.Text.JSONLField = "body"; c.ValidationFraction = 0.5 }, "text.jsonl_field was text, is body; validation_fraction was 0, is 0.5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			other := c
			test.edit(&other)
			_, err := Prepare(context.Background(), other, nil)
			want := strings.ReplaceAll(test.want, "TEXT", c.Text.Path)
			checkError(t, err, c.Shards, fmt.Sprintf("data.shards: DIR was made from other settings (%s): choose another folder or delete it", want))
		})
	}

	t.Run("without text", func(t *testing.T) {
		other := c
		other.Text = TextConfig{}
		if _, err := Prepare(context.Background(), other, nil); err != nil {
			t.Error(err)
		}
		other.Shards += "-none"
		_, err := Prepare(context.Background(), other, nil)
		checkError(t, err, other.Shards, "data.shards: no folder DIR, and data.text.path is empty: name a folder of shards, or one of text to make them from")
	})
}

// TestPrepareThroughLink: a folder of shards that is a link to one on another disk is filled there,
// and remains a link.
func TestPrepareThroughLink(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(5)))
	target := t.TempDir()
	if err := os.Symlink(target, c.Shards); err != nil {
		t.Skip(err)
	}
	mustPrepare(t, c)
	if to, err := os.Readlink(c.Shards); err != nil || to != target {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if err := verify(target); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(c.Shards + ".*"); err != nil || len(left) > 0 {
		t.Errorf("beside the link there is %v, %v", left, err)
	}
	if err := os.RemoveAll(target); err != nil {
		t.Fatal(err)
	}
	_, err := Prepare(t.Context(), c, nil)
	checkError(t, err, c.Shards, "data.shards: DIR: is a link that leads nowhere: make what it leads to, or remove the link")
}

func TestPrepareErrors(t *testing.T) {
	for _, test := range []struct {
		name     string
		files    map[string]string
		fraction float64
		want     string
	}{
		{"empty", map[string]string{"a.txt": "", "b.jsonl": "\n"}, 0, "data.text: there is no text in what was read from DIR (files: 2, empty documents: 2): point data.text.path at other text"},
		{"no validation", map[string]string{"a.txt": "a"}, 0.001, "data.validation_fraction: no document (of 1) fell into the validation split at 0.001: raise it, or name files in data.text.validation"},
		{"no validation of several", map[string]string{"a.txt": "a", "b.jsonl": "\n{\"text\": \"b\"}\n", "c.txt": ""}, 0.001, "data.validation_fraction: no document (of 2) fell into the validation split at 0.001: raise it, or name files in data.text.validation"},
		{"no training", map[string]string{"a.txt": "a"}, 0.9999, "data.validation_fraction: every document (of 1) fell into the validation split at 0.9999: lower it, or name files in data.text.validation"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := testConfig(t, writeFiles(t, test.files))
			c.ValidationFraction = test.fraction
			_, err := Prepare(context.Background(), c, func(p Progress) {
				if p.Tokens > 0 {
					t.Error("text was tokenized before the error")
				}
			})
			checkError(t, err, c.Text.Path, test.want)
		})
	}

	t.Run("a folder of something else", func(t *testing.T) {
		c := testConfig(t, writeFiles(t, corpus(1)))
		c.Shards = writeFiles(t, map[string]string{"thesis.doc": "x"})
		_, err := Prepare(context.Background(), c, nil)
		checkError(t, err, c.Shards, "data.shards: DIR has files but no manifest.json, so it is not a complete folder of shards: choose another folder or delete it")
	})
	t.Run("an empty folder", func(t *testing.T) {
		c := testConfig(t, writeFiles(t, corpus(1)))
		c.Shards = t.TempDir()
		mustPrepare(t, c)
	})
}

// TestPrepareGoesOn stops a prepare at several places, and gets the same shards as without
// stopping.
func TestPrepareGoesOn(t *testing.T) {
	files := corpus(60)
	files["b.jsonl.zst"] = strings.Repeat("{\"text\": \"a line of text that is there many times\"}\n", 3000)
	files["z.txt"] = "the last one"
	folder := writeFiles(t, files)
	c := testConfig(t, folder)
	c.ValidationFraction = 0.3
	want := mustPrepare(t, c)
	for i, stops := range [][]int64{{1}, {9000}, {5000, 60000, 90000}, {0, 1e9}, {9000}} {
		c.Shards = filepath.Join(t.TempDir(), "shards")
		if i == 4 {
			c.Shards = filepath.Join(folder, "inside", "shards")
		}
		first := int64(0)
		for _, stop := range stops {
			ctx, cancel := context.WithCancel(context.Background())
			_, err := prepare(ctx, c, smallLayout, func(p Progress) {
				if p.Bytes > stop {
					cancel()
				}
			})
			cancel()
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		saved, _ := os.ReadFile(filepath.Join(c.Shards+".partial", journalName))
		m, err := prepare(context.Background(), c, smallLayout, func(p Progress) {
			if first == 0 {
				first = p.Bytes
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("stopped at %v, the shards differ: %s", stops, diff)
		}
		if len(saved) > 0 && first < 2000 {
			t.Errorf("stopped at %v, the first progress after is %d bytes: it began again", stops, first)
		}
		if left, _ := filepath.Glob(filepath.Join(c.Shards, "*.json")); len(left) != 1 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// TestPrepareStartsOver if the unfinished work is from other text.
func TestPrepareStartsOver(t *testing.T) {
	files := corpus(300)
	stopped := func(t *testing.T) (Config, string) {
		folder := writeFiles(t, files)
		c := testConfig(t, folder)
		ctx, cancel := context.WithCancel(context.Background())
		_, err := prepare(ctx, c, smallLayout, func(p Progress) {
			if p.Bytes > 9000 {
				cancel()
			}
		})
		if _, missing := os.Stat(filepath.Join(c.Shards+".partial", journalName)); !errors.Is(err, context.Canceled) || missing != nil {
			t.Fatal(err, missing)
		}
		return c, folder
	}
	for name, change := range map[string]func(c *Config, folder string) error{
		"changed file": func(_ *Config, folder string) error {
			return os.WriteFile(filepath.Join(folder, "doc000.txt"), []byte("other"), 0o600)
		},
		"changed file of the same size": func(_ *Config, folder string) error {
			path := filepath.Join(folder, "doc000.txt")
			text := []byte(files["doc000.txt"])
			text[0]++
			return errors.Join(os.WriteFile(path, text, 0o600), os.Chtimes(path, time.Time{}, time.Now().Add(time.Hour)))
		},
		"lost shard": func(c *Config, _ string) error {
			return os.Remove(filepath.Join(c.Shards+".partial", "train-00000.parquet"))
		},
		"other settings": func(c *Config, _ string) error { c.ValidationFraction = 0.2; return nil },
		"journal cut short": func(c *Config, _ string) error {
			return os.Truncate(filepath.Join(c.Shards+".partial", journalName), 100)
		},
		"journal before the first file": damaged(`"file": [0-9]+,`, `"file": -1,`),
		"journal of another document":   damaged(`"document": [0-9]+`, `"document": -5`),
		"journal without counts":        damaged(`(?s)"byte_counts": \[.*?\],`, ""),
		"journal with a path":           damaged(`"train-00000.parquet"`, `"../train-00000.parquet"`),
		"journal with other sums":       damaged(`"tokens": [0-9]+`, `"tokens": 1`),
	} {
		t.Run(name, func(t *testing.T) {
			c, folder := stopped(t)
			if err := change(&c, folder); err != nil {
				t.Fatal(err)
			}
			first := int64(0)
			m, err := prepare(context.Background(), c, smallLayout, func(p Progress) {
				if first == 0 {
					first = p.Bytes
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			if first > 2000 {
				t.Errorf("the first progress is %d bytes: it went on", first)
			}
			fresh := c
			fresh.Shards = filepath.Join(t.TempDir(), "shards")
			if diff := cmp.Diff(mustPrepare(t, fresh), m); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// damaged changes the journal of an unfinished prepare.
func damaged(pattern, by string) func(c *Config, folder string) error {
	return func(c *Config, _ string) error {
		path := filepath.Join(c.Shards+".partial", journalName)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		changed := regexp.MustCompile(pattern).ReplaceAll(text, []byte(by))
		if bytes.Equal(changed, text) {
			return fmt.Errorf("no %s in %s", pattern, text)
		}
		return os.WriteFile(path, changed, 0o600)
	}
}

func TestPrepareTwiceAtOnce(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(200)))
	manifests := make([]Manifest, 4)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		writes = map[int]bool{}
	)
	for i := range manifests {
		wg.Go(func() {
			var err error
			manifests[i], err = prepare(context.Background(), c, smallLayout, func(Progress) {
				mu.Lock()
				defer mu.Unlock()
				writes[i] = true
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(writes) != 1 {
		t.Errorf("%d of the callers wrote the shards, want 1", len(writes))
	}
	for _, m := range manifests[1:] {
		if diff := cmp.Diff(manifests[0], m); diff != "" {
			t.Error(diff)
		}
	}
	checkUnlocked(t, c)
}

// TestPrepareKilled kills a process that prepares, which is this test run again with the variables
// set.
func TestPrepareKilled(t *testing.T) {
	if text := os.Getenv("DATA_TEST_TEXT"); text != "" {
		c := testConfig(t, text)
		c.Shards = os.Getenv("DATA_TEST_SHARDS")
		_, err := prepare(context.Background(), c, smallLayout, func(Progress) {
			fmt.Println("writing")
			select {}
		})
		t.Fatal("prepare came back: ", err)
	}
	c := testConfig(t, writeFiles(t, corpus(2500)))
	child := exec.Command(os.Args[0], "-test.run=^TestPrepareKilled$")
	child.Env = append(os.Environ(), "DATA_TEST_TEXT="+c.Text.Path, "DATA_TEST_SHARDS="+c.Shards)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "writing"; {
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()

	if shards, _ := filepath.Glob(filepath.Join(c.Shards+".partial", "*.parquet")); len(shards) == 0 {
		t.Error("the killed process had written no shard: the test is no test")
	}
	if _, err := os.Stat(c.Shards + ".lock"); err != nil {
		t.Error("the killed process had no lock: the test is no test: ", err)
	}
	_, err = Open(context.Background(), c, Train)
	checkError(t, err, c.Shards, "data.shards: no manifest.json in DIR: run `sambatrain data prepare` first, or choose another folder")
	mustPrepare(t, c)
	if got := documents(t, mustOpen(t, c, Train)); len(got) != 2501 {
		t.Errorf("%d documents after the second prepare, want 2501", len(got))
	}
	if _, err := os.Stat(c.Shards + ".partial"); !os.IsNotExist(err) {
		t.Errorf("the killed prepare's work is still there: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Shards, "prepare*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	checkUnlocked(t, c)
}
