package data_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sambatrain/sambatrain/data"
)

func ExampleNewTokenizer() {
	tok, err := data.NewTokenizer("bytes") // or the path of a tokenizer.json or tokenizer.model
	if err != nil {
		fmt.Println(err)
		return
	}
	ids, err := tok.Encode([]int32{tok.EOS()}, []byte("Go!")) // a text starts after an end of text
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ids, string(tok.Decode(nil, ids)))
	// Output: [256 71 111 33] Go!
}

// From a folder of text to batches of rows of T+1 tokens.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "text")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for i := range 9 {
		text := strings.Repeat(fmt.Sprintf("%d green bottles\n", i), 4)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.txt", i)), []byte(text), 0o666); err != nil {
			fmt.Println(err)
			return
		}
	}
	c := data.DefaultConfig()
	c.Text.Path, c.Shards, c.SeqLen, c.ValidationFraction = dir, filepath.Join(dir, "shards"), 8, 0
	if err := data.PrepareAll(context.Background(), c, nil); err != nil {
		fmt.Println(err)
		return
	}
	ds, err := data.Open(context.Background(), c, data.Train)
	if err != nil {
		fmt.Println(err)
		return
	}
	const rows = 2
	batch := make([]int32, rows*(c.SeqLen+1))
	if err := ds.Batch(0, rows, batch); err != nil { // of step 0; NewLoader reads ahead
		fmt.Println(err)
		return
	}
	inputs, targets := make([]int32, c.SeqLen), make([]int32, c.SeqLen)
	data.SplitRow(batch[:c.SeqLen+1], inputs, targets)
	fmt.Println(ds.Tokens(), "tokens") // bytes, and an end of text after each file
	fmt.Printf("%q\n%q\n", ds.Tokenizer().Decode(nil, inputs), ds.Tokenizer().Decode(nil, targets))
	// Output:
	// 585 tokens
	// "1 green"
	// "1 green "
}
