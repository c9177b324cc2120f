package data

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDuckDBReadsShards compares what DuckDB finds in shards with what the manifest says and Dataset reads.
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
