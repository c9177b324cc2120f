package data

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
)

func TestLoaderEqualsBatch(t *testing.T) {
	const batch = 5
	d := shuffledDataset(t, 3407)
	steps := 2*d.Blocks()/batch + 3
	want, got := make([]int32, batch*17), make([]int32, batch*17)
	for _, start := range []int64{0, 1, 7, d.Blocks()/batch - 1, d.Blocks() / batch, 1000} {
		l, err := NewLoader(d, batch, start)
		if err != nil {
			t.Fatal(err)
		}
		for s := start; s < start+steps; s++ {
			if wait, err := l.Next(got); err != nil || wait < 0 {
				t.Fatal(wait, err)
			}
			if err := d.Batch(s, batch, want); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("started at %d, batch %d differs from Batch", start, s)
			}
		}
		l.Close()
	}
}

// TestLoaderEnds runs in a bubble that fails if a goroutine is left.
func TestLoaderEnds(t *testing.T) {
	d := shuffledDataset(t, 1)
	dst := make([]int32, 2*17)
	decodeOutside(t, d, dst)
	for _, batches := range []int{0, 1, 200} {
		synctest.Test(t, func(t *testing.T) {
			l, err := NewLoader(d, 2, 0)
			if err != nil {
				t.Fatal(err)
			}
			for range batches {
				if _, err := l.Next(dst); err != nil {
					t.Fatal(err)
				}
			}
			l.Close()
			l.Close()
		})
	}
	l, err := NewLoader(d, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = l.Next(dst)
	checkError(t, err, "", "data: the loader is closed")
}

// decodeOutside creates the decoder that all readers share outside of a bubble.
func decodeOutside(t *testing.T, d *Dataset, dst []int32) {
	t.Helper()
	if err := d.Batch(0, len(dst)/17, dst); err != nil {
		t.Fatal(err)
	}
}

func TestLoaderReportsLostShard(t *testing.T) {
	d := shuffledDataset(t, 1)
	decodeOutside(t, d, make([]int32, 17))
	last := d.parts[0].manifest.Train.Shards[len(d.parts[0].manifest.Train.Shards)-1].File
	if err := os.Remove(filepath.Join(d.parts[0].dir, last)); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		l, err := NewLoader(d, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		dst := make([]int32, 17)
		for err == nil {
			_, err = l.Next(dst)
		}
		want := "data.shards: open DIR/" + last + ": no such file or directory: restore the file, or delete the folder and run `sambatrain data prepare` again"
		checkError(t, err, d.parts[0].dir, want)
		_, err = l.Next(dst)
		checkError(t, err, d.parts[0].dir, want)
	})
}

func TestLoaderRefuses(t *testing.T) {
	d := shuffledDataset(t, 1)
	_, err := NewLoader(d, 0, 3)
	checkError(t, err, "", "data: no batch of 0 rows at step 3")
	l, err := NewLoader(d, 2, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = l.Next(make([]int32, 17))
	checkError(t, err, "", "data: a batch of 2 rows has 34 tokens, the buffer has room for 17")
}
