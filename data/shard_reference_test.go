package data

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDuckDBReadsShards compares what DuckDB finds in shards with what the manifest says and
// Dataset reads.
func TestDuckDBReadsShards(t *testing.T) {
	dir := reference(t, "@duckdb/node-api")
	c := testConfig(t, writeFiles(t, corpus(300)))
	if _, err := prepare(context.Background(), c, layout{RowGroupTokens: 300, ShardTokens: 9000}, nil); err != nil {
		t.Fatal(err)
	}
	d := mustOpen(t, c, Train)
	script, err := filepath.Abs("testdata/references/duckdb.mjs")
	if err != nil {
		t.Fatal(err)
	}
	info := d.parts[0].manifest.Train
	args := []string{script}
	var rows int64
	for _, s := range info.Shards {
		args = append(args, filepath.Join(c.Shards, s.File))
		rows += s.Rows
	}
	if len(info.Shards) < 2 || rows <= info.Documents {
		t.Errorf("%d shards with %d rows for %d documents are no test", len(info.Shards), rows, info.Documents)
	}
	command := exec.Command("node", args...)
	command.Dir, command.Stderr = dir, os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	type report struct {
		Columns  []string          `json:"columns"`
		Sums     map[string]int64  `json:"sums"`
		Metadata map[string]string `json:"metadata"`
	}
	var got report
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var sum int64
	for _, id := range stream(t, d) {
		sum += int64(id)
	}
	delete(got.Metadata, "ARROW:schema")
	delete(got.Metadata, keySource)
	want := report{
		Columns: []string{"document: VARCHAR", "tokens: INTEGER[]", "bytes: BIGINT"},
		Sums:    map[string]int64{"rows": rows, "tokens": info.Tokens, "bytes": info.Bytes, "documents": info.Documents, "sum_of_ids": sum},
		Metadata: map[string]string{keyFormat: "1", keyTokenizer: "bytes", keyFingerprint: Describe(byteTok(t)).Fingerprint,
			keyVocabSize: "257", keyEOS: "256", keySplit: "train"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestShardsOfAnotherProgram opens a folder whose shard DuckDB wrote.
func TestShardsOfAnotherProgram(t *testing.T) {
	dir := reference(t, "@duckdb/node-api")
	tok := Describe(byteTok(t))
	type row struct {
		Document string  `json:"document"`
		Tokens   []int32 `json:"tokens"`
		Bytes    int     `json:"bytes"`
	}
	shard := struct {
		Metadata map[string]string `json:"metadata"`
		Rows     []row             `json:"rows"`
	}{Metadata: map[string]string{keyFormat: "1", keyTokenizer: tok.Name, keyFingerprint: tok.Fingerprint,
		keyVocabSize: "257", keyEOS: "256", keySplit: "train"}}
	var texts []string
	info := SplitInfo{}
	for i := range 50 {
		text := fmt.Sprintf("document %d, it's of another program", i)
		ids := append(mustEncode(t, byteTok(t), nil, []byte(text)), tok.EOS)
		shard.Rows = append(shard.Rows, row{fmt.Sprint("doc", i), ids, len(text)})
		texts = append(texts, text)
		info.Documents++
		info.Tokens += int64(len(ids))
		info.Bytes += int64(len(text))
		info.LongestDocument = max(info.LongestDocument, int64(len(ids)))
	}
	c := testConfig(t, "")
	c.Text.Path, c.Shards = "", t.TempDir()
	script, err := filepath.Abs("testdata/references/write_shard.mjs")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.Shards, "other.parquet")
	command := exec.Command("node", script, path)
	command.Dir, command.Stderr, command.Stdin = dir, os.Stderr, bytes.NewReader(mustJSON(shard))
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info.Shards = []Shard{{File: "other.parquet", Size: int64(len(file)), XXH3: checksum(file), Rows: info.Documents, Tokens: info.Tokens, Bytes: info.Bytes}}
	m := Manifest{Format: formatVersion, Tokenizer: tok, Train: info, Validation: SplitInfo{Shards: []Shard{}}}
	if err := os.WriteFile(filepath.Join(c.Shards, manifestName), mustJSON(m), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify(c.Shards); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(texts, documents(t, mustOpen(t, c, Train))); diff != "" {
		t.Error(diff)
	}
}
