package data

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodManifest = `{
  "format": 1,
  "tokenizer": {"name": "bytes", "fingerprint": "sha256:00", "vocab_size": 257, "eos_id": 256},
  "train": {"documents": 2, "tokens": 30, "bytes": 28, "longest_document": 20, "shards": [
    {"file": "train-00000.parquet", "size": 900, "xxh3": "0123456789abcdef", "rows": 1, "tokens": 20, "bytes": 19},
    {"file": "train-00001.parquet", "size": 900, "xxh3": "0123456789abcdef", "rows": 1, "tokens": 10, "bytes": 9}]},
  "validation": {"documents": 0, "tokens": 0, "bytes": 0, "longest_document": 0, "shards": []}
}`

func TestParseManifest(t *testing.T) {
	if _, err := parseManifest([]byte(goodManifest)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, old, new, want string }{
		{"not JSON", "{", "", `bad JSON: invalid character ':' after top-level value`},
		{"cut short", "\n}", "", "bad JSON: unexpected end of JSON input"},
		{"version", `"format": 1`, `"format": 2`, "format is 2, this program reads format 1"},
		{"no version", `"format": 1,`, ``, "format is 0, this program reads format 1"},
		{"misspelt", `"rows"`, `"row"`, `bad JSON: json: unknown field "row"`},
		{"vocabulary", `257`, `0`, "tokenizer: vocab_size 0 with eos_id 256 is invalid"},
		{"end of text", `"eos_id": 256`, `"eos_id": 257`, "tokenizer: vocab_size 257 with eos_id 257 is invalid"},
		{"path", `train-00000.parquet`, `../x`, `train: shard "../x" is not the name of a file in this folder`},
		{"backslash", `train-00000.parquet`, `a\\x`, `train: shard "a\\x" is not the name of a file in this folder`},
		{"no name", `train-00000.parquet`, ``, `train: shard "" is not the name of a file in this folder`},
		{"twice", `train-00001`, `train-00000`, `train: shard train-00000.parquet is listed twice`},
		{"checksum", `0123456789abcdef`, `0123`, `train: shard train-00000.parquet: xxh3 is "0123", want 16 hexadecimal digits`},
		{"rows", `"rows": 1`, `"rows": 21`, "train: shard train-00000.parquet: size 900, rows 21, tokens 20, bytes 19 is invalid"},
		{"too few tokens", `"tokens": 30`, `"tokens": 29`, "train: the shards hold more than tokens 29, bytes 28"},
		{"too many bytes", `"bytes": 28`, `"bytes": 29`, "train: the shards do not add up to tokens 30, bytes 29"},
		{"longest", `"longest_document": 20`, `"longest_document": 31`, "train: documents 2 with longest_document 31 is invalid"},
		{"byte counts", `"shards": []`, `"byte_counts": [1], "shards": []`, "validation: byte_counts has 1 numbers, want 256"},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw := strings.Replace(goodManifest, test.old, test.new, 1)
			if raw == goodManifest {
				t.Fatal("nothing was replaced")
			}
			_, err := parseManifest([]byte(raw))
			checkError(t, err, "", test.want)
		})
	}
}

func TestReadManifestNamesFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, manifestName), []byte(`{"format": 9}`), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := ReadManifest(dir)
	checkError(t, err, dir, "data.shards: DIR/manifest.json: format is 9, this program reads format 1: "+remedy)
}

// FuzzManifest parses any bytes as a manifest. A manifest that is accepted survives being written
// again.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Add([]byte(`{"format": 1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := parseManifest(raw)
		if err != nil {
			return
		}
		m.UnigramBitsPerByte()
		written := mustJSON(m)
		again, err := parseManifest(written)
		if err != nil {
			t.Fatalf("%s is refused after it is written again: %v", raw, err)
		}
		if !bytes.Equal(mustJSON(again), written) || again.Fingerprint() != m.Fingerprint() {
			t.Errorf("%s says something else after it is written again", raw)
		}
	})
}

func TestManifestOfDocs(t *testing.T) {
	docs, err := os.ReadFile("../docs/data.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(docs), "```json\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("docs/data.md has no example of a manifest")
	}
	if _, err := parseManifest([]byte(example)); err != nil {
		t.Error(err)
	}
}
