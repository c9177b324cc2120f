package data

import (
	"os"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v16/arrow/array"
)

// TestVerifyNamesEach damages two shards of several: the others are still counted.
func TestVerifyNamesEach(t *testing.T) {
	c := testConfig(t, writeFiles(t, corpus(200)))
	m := mustPrepare(t, c)
	told := 0
	good, err := Verify(t.Context(), c.Shards, func(done, shards int) {
		if told++; done != told || shards != len(m.Train.Shards)+len(m.Validation.Shards) {
			t.Errorf("%d of %d shards after %d", done, shards, told)
		}
	})
	if err != nil || len(good) != len(m.Train.Shards) || len(good) < 4 {
		t.Fatal(good, err)
	}
	if told != len(good) {
		t.Errorf("progress is told %d times, of %d shards", told, len(good))
	}
	documents, tokens := int64(0), int64(0)
	for _, v := range good {
		documents += v.Documents
		tokens += v.Tokens
	}
	if documents != m.Train.Documents || tokens != m.Train.Tokens {
		t.Errorf("%d documents of %d tokens, want %d of %d", documents, tokens, m.Train.Documents, m.Train.Tokens)
	}
	if err := os.Remove(good[1].File); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(good[3].File, 9); err != nil {
		t.Fatal(err)
	}
	found, err := Verify(t.Context(), c.Shards, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range found {
		switch want := map[int]string{1: "no such file", 3: "has 9 bytes"}[i]; {
		case want == "" && (v != good[i]):
			t.Errorf("shard %d: %+v, want %+v", i, v, good[i])
		case want != "" && (v.Err == nil || !strings.Contains(v.Err.Error(), want) || !strings.Contains(v.Err.Error(), good[i].File)):
			t.Errorf("shard %d: error is %v, want %s: %s", i, v.Err, good[i].File, want)
		}
	}
}

func TestVerifyReadsRows(t *testing.T) {
	sameName := func(b *array.RecordBuilder) {
		for _, ids := range [][]int32{{'a', 'b'}, {'c', 256}, {'d'}} {
			fillRows(ids)(b)
		}
	}
	for _, test := range []struct {
		name      string
		documents int64
		fill      func(*array.RecordBuilder)
		want      string
	}{
		{"no end", 2, fillRows([]int32{'a', 'b'}, []int32{'c', 256}),
			"data.shards: DIR/part-0.parquet: row group 0, row 1: document 1 begins before document 0 has ended with an end-of-text token: " + remedy},
		{"end inside", 1, fillRows([]int32{256, 'b', 256}),
			"data.shards: DIR/part-0.parquet: row group 0, row 0: document 0 has an end-of-text token before its end: " + remedy},
		{"ends within", 1, sameName,
			"data.shards: DIR/part-0.parquet: ends within document 0: " + remedy},
		{"documents", 3, fillRows([]int32{'a', 256}, []int32{'b', 256}),
			"data.shards: DIR: the train split has 2 documents, the manifest says 3: " + remedy},
		{"bytes", 1, func(b *array.RecordBuilder) {
			fillRows([]int32{'a', 256})(b)
			b.Field(0).(*array.Int64Builder).Append(1)
			b.Field(1).(*array.ListBuilder).Append(true)
			b.Field(1).(*array.ListBuilder).ValueBuilder().(*array.Int32Builder).AppendValues([]int32{'b', 256}, nil)
			b.Field(2).(*array.StringBuilder).Append("short")
		}, "data.shards: DIR/part-0.parquet: has 3 bytes of text, the manifest says 4: " + remedy},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := foreignFolder(t, test.documents, test.fill)
			checkError(t, verify(c.Shards), c.Shards, test.want)
		})
	}
}
