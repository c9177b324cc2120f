package data

import (
	"context"
	"strings"
	"sync"
	"testing"
)

// recorded counts what a Watch is told.
type recorded struct {
	mu    sync.Mutex
	begun map[string]int
	under int
}

func (r *recorded) watch(what string) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun[what]++
	r.under++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.under--
	}
}

// TestWatch: a prepare, one that continues it, and opening its shards report each file that they
// read or write.
func TestWatch(t *testing.T) {
	folder := writeFiles(t, map[string]string{
		"a.txt": strings.Repeat("text ", 900), "b.jsonl.zst": `{"text": "a line"}`, "c.txt.gz": "more text"})
	c := testConfig(t, folder)
	r := recorded{begun: map[string]int{}}
	ctx := WithWatch(t.Context(), r.watch)
	check := func(during string, want ...string) {
		t.Helper()
		for _, what := range want {
			if r.begun[strings.ReplaceAll(what, "SHARDS", c.Shards)] == 0 {
				t.Errorf("%s: not told of %s, but of %v", during, what, r.begun)
			}
		}
		if r.under != 0 {
			t.Errorf("%s: %d operations have not ended", during, r.under)
		}
		clear(r.begun)
	}
	stopped, stop := context.WithCancel(ctx)
	if _, err := prepare(stopped, c, smallLayout, func(p Progress) { stop() }); err == nil {
		t.Fatal("a prepare that was stopped ends well")
	}
	check("a stopped prepare", "listing "+folder, "reading "+folder+"/a.txt", "writing SHARDS.partial/train-00000.parquet", "writing SHARDS.partial/prepare.json.new")
	if _, err := prepare(ctx, c, smallLayout, nil); err != nil {
		t.Fatal(err)
	}
	check("a prepare that goes on", "looking at "+folder+"/a.txt", "clearing SHARDS.partial", "reading "+folder+"/b.jsonl.zst", "reading "+folder+"/c.txt.gz",
		"writing SHARDS.partial/manifest.json", "renaming SHARDS.partial")
	if _, err := Open(ctx, c, Train); err != nil {
		t.Fatal(err)
	}
	check("opening", "reading SHARDS/train-00000.parquet")
}
