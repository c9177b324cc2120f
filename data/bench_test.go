package data

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// benchDataset prepares about 16 MiB of random words, two groups of spans.
func benchDataset(b *testing.B, seqLen int) *Dataset {
	b.Helper()
	c := testConfig(b, benchText(b))
	c.SeqLen = seqLen
	if _, err := Prepare(context.Background(), c, nil); err != nil {
		b.Fatal(err)
	}
	return mustOpen(b, c, Train)
}

func benchText(b *testing.B) string {
	words := make([]string, 2000)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range words {
		var w strings.Builder
		for range 1 + random.IntN(9) {
			w.WriteByte(byte('a' + random.IntN(26)))
		}
		words[i] = w.String() + " "
	}
	files := map[string]string{}
	for f := range 256 {
		var text strings.Builder
		for text.Len() < 64<<10 {
			// Squared, so that some words are common.
			u := random.Float64()
			text.WriteString(words[int(u*u*float64(len(words)))])
		}
		files[fmt.Sprintf("%03d.txt", f)] = text.String()
	}
	return writeFiles(b, files)
}

// BenchmarkLoader streams batches of 16 rows, including decoding, and reports how long Next waits
// if nothing else happens in the meantime.
func BenchmarkLoader(b *testing.B) {
	const batch = 16
	for _, seqLen := range []int{512, 4096} {
		b.Run(fmt.Sprintf("T=%d", seqLen), func(b *testing.B) {
			d := benchDataset(b, seqLen)
			dst := make([]int32, batch*(seqLen+1))
			l, err := NewLoader(d, batch, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.Next(dst); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*batch*float64(seqLen)/b.Elapsed().Seconds()/1e6, "Mtokens/s")
		})
	}
}

// BenchmarkShareLoader streams the share of one of several processes, with batches of one row for
// each, and reports the tokens of the whole batches.
func BenchmarkShareLoader(b *testing.B) {
	for _, seqLen := range []int{512, 4096} {
		d := benchDataset(b, seqLen)
		for _, processes := range []int{1, 8, 64, 512} {
			b.Run(fmt.Sprintf("T=%d/processes=%d", seqLen, processes), func(b *testing.B) {
				dst := make([]int32, seqLen+1)
				l, err := NewShareLoader(d, Share{processes / 2, processes}, processes, 0)
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				b.ReportAllocs()
				for b.Loop() {
					if _, err := l.Next(dst); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*float64(processes*seqLen)/b.Elapsed().Seconds()/1e6, "Mtokens/s")
			})
		}
	}
}

// BenchmarkRows packs batches from a group that is already open.
func BenchmarkRows(b *testing.B) {
	d := benchDataset(b, 512)
	dst := make([]int32, 16*513)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Batch(3, 16, dst); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*16*512/b.Elapsed().Seconds()/1e6, "Mtokens/s")
}

func BenchmarkPrepare(b *testing.B) {
	c := testConfig(b, benchText(b))
	shards := c.Shards
	var text int64
	for i := 0; b.Loop(); i++ {
		c.Shards = fmt.Sprint(shards, i)
		m, err := Prepare(context.Background(), c, nil)
		if err != nil {
			b.Fatal(err)
		}
		text = m.Train.Bytes
	}
	b.SetBytes(text)
}
