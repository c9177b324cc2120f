package data

import (
	"context"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func generated(task, loss string, seqLen int) Config {
	c := DefaultConfig()
	c.Generate, c.SeqLen = Generated{Task: task, Loss: loss}, seqLen
	return c
}

// TestPasskeyText: the prompt is the paper's, word for word, at every length and depth.
func TestPasskeyText(t *testing.T) {
	testPasskeyText(t, byteTokenizer{}, 0.01)
	p, err := NewPasskeys(byteTokenizer{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Question(rand.New(rand.NewPCG(1, 2)), 240, 0); err == nil || !strings.Contains(err.Error(), "needs ") {
		t.Errorf("too short a document: %v", err)
	}

	// A tokenizer with a token of a full stop and a line break, as Llama 3's has.
	joining, _ := trained(t, 330, strings.Repeat(passkeyTask+"\n"+passkeyFiller+"\n", 100))
	if ids := mustEncode(t, joining, nil, []byte(".\n")); len(ids) != 1 {
		t.Fatalf("a full stop and a line break are not joined: %v", ids)
	}
	testPasskeyText(t, joining, 0.03)
}

func testPasskeyText(t *testing.T, tok Tokenizer, tolerance float64) {
	t.Helper()
	p, err := NewPasskeys(tok)
	if err != nil {
		t.Fatal(err)
	}
	filler := strings.Repeat(passkeyFiller+" ", 100)
	shape := regexp.MustCompile(`^There is an important info hidden inside a lot of irrelevant text\. Find it and memorize them\. I will quiz you about the important information there\.
(.*)
The pass key is (\d{5})\. Remember it\. (\d{5}) is the pass key\.
(.*)
What is the pass key\? The pass key is$`)
	for _, length := range []int{300, 1000, 4096} {
		for _, depth := range []float64{0, 0.1, 0.5, 1} {
			q, err := p.Question(rand.New(rand.NewPCG(1, 2)), length, depth)
			if err != nil {
				t.Fatal(err)
			}
			if len(q.Prompt) != length || q.Prompt[0] != tok.EOS() {
				t.Fatalf("%d tokens from %d, want %d from the end of text", len(q.Prompt), q.Prompt[0], length)
			}
			parts := shape.FindStringSubmatch(string(tok.Decode(nil, q.Prompt)))
			if parts == nil {
				t.Fatalf("length %d, depth %g: %s", length, depth, tok.Decode(nil, q.Prompt))
			}
			before, after := parts[1], parts[4]
			if parts[2] != q.Answer || parts[3] != q.Answer || !strings.HasPrefix(filler, before) || !strings.HasPrefix(filler, after) {
				t.Errorf("length %d, depth %g: keys %s and %s, answer %s, filler %q and %q", length, depth, parts[2], parts[3], q.Answer, before, after)
			}
			if got := float64(len(before)) / float64(len(before)+len(after)); got < depth-tolerance || got > depth+tolerance {
				t.Errorf("length %d: depth %g, want %g", length, got, depth)
			}
		}
	}
}

// TestPhonebookText: one line per entry, two examples, a name; the answer is its number.
func TestPhonebookText(t *testing.T) {
	tok := byteTokenizer{}
	p, err := NewPhonebooks(tok)
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`^[A-Z][a-z]+ [A-Z][A-Za-z]+: [6-9]\d{9}$`)
	for _, n := range []int{3, 20, 480} {
		q, err := p.Question(rand.New(rand.NewPCG(1, uint64(n))), n)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(tok.Decode(nil, q.Prompt)), "\n\n")
		if len(parts) != 3 {
			t.Fatalf("%d parts: %q", len(parts), parts)
		}
		book, examples := strings.Split(parts[0], "\n"), strings.Split(parts[1], "\n")
		if len(book) != n || len(examples) != 2 || !slices.Contains(book, examples[0]) || !slices.Contains(book, examples[1]) || examples[0] == examples[1] {
			t.Errorf("%d entries, examples %q", len(book), examples)
		}
		asked := parts[2] + " " + q.Answer
		if !slices.Contains(book, asked) || slices.Contains(examples, asked) {
			t.Errorf("asked %q", asked)
		}
		names := map[string]bool{}
		for _, e := range book {
			if !entry.MatchString(e) {
				t.Errorf("entry %q", e)
			}
			name, _, _ := strings.Cut(e, ":")
			names[name] = true
		}
		if len(names) != n {
			t.Errorf("%d names of %d entries", len(names), n)
		}
	}
	for _, n := range []int{2, MaxEntries + 1} {
		if _, err := p.Question(rand.New(rand.NewPCG(1, 1)), n); err == nil {
			t.Errorf("a book of %d entries", n)
		}
	}
	if duplicates(firstNames) || duplicates(lastNames) {
		t.Error("a name is listed twice")
	}
}

func duplicates(list []string) bool {
	sorted := slices.Sorted(slices.Values(list))
	return len(slices.Compact(sorted)) != len(list)
}

// TestGeneratedRows: a row is a pure function of seed, split and number, whatever the batch, and
// its targets are the answer and the end of text.
func TestGeneratedRows(t *testing.T) {
	const seqLen = 600
	for _, task := range []string{TaskPasskey, TaskPhonebook} {
		t.Run(task, func(t *testing.T) {
			ctx := context.Background()
			open := func(c Config, split Split) *Dataset {
				d, err := Open(ctx, c, split)
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			read := func(d *Dataset, first int64, n int) []int32 {
				dst := make([]int32, n*(seqLen+1))
				if err := d.Rows(first, n, dst); err != nil {
					t.Fatal(err)
				}
				return dst
			}
			c := generated(task, LossAnswer, seqLen)
			d := open(c, Train)
			rows := read(d, 5, 4)
			var again []int32
			for i := range int64(4) {
				again = append(again, read(open(c, Train), 5+i, 1)...)
			}
			if !slices.Equal(rows, again) {
				t.Error("rows depend on the batch")
			}
			loader, err := NewLoader(open(c, Train), 2, 3)
			if err != nil {
				t.Fatal(err)
			}
			defer loader.Close()
			batch := make([]int32, 2*(seqLen+1))
			for step := range int64(3) {
				if _, err := loader.Next(batch); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(batch, read(d, 2*(3+step), 2)) {
					t.Errorf("step %d: the loader has other rows", 3+step)
				}
			}
			other := c
			other.Seed++
			for name, x := range map[string]*Dataset{"another split": open(c, Validation), "another seed": open(other, Train)} {
				if slices.Equal(rows[:seqLen], read(x, 5, 1)[:seqLen]) {
					t.Errorf("%s has the same rows", name)
				}
			}
			all := open(generated(task, LossAll, seqLen), Train)
			if d.Fingerprint() == all.Fingerprint() || d.Fingerprint() != open(c, Train).Fingerprint() {
				t.Error("fingerprints")
			}
			answers(t, read(all, 5, 4), rows, seqLen)
		})
	}
}

// answers checks rows in which only the answer counts against those in which all tokens do.
func answers(t *testing.T, all, rows []int32, seqLen int) {
	t.Helper()
	tok := byteTokenizer{}
	tokens, targets := make([]int32, seqLen), make([]int32, seqLen)
	whole, wholeTargets := make([]int32, seqLen), make([]int32, seqLen)
	for i := range len(rows) / (seqLen + 1) {
		SplitRow(rows[i*(seqLen+1):(i+1)*(seqLen+1)], tokens, targets)
		SplitRow(all[i*(seqLen+1):(i+1)*(seqLen+1)], whole, wholeTargets)
		if !slices.Equal(tokens, whole) || slices.Min(tokens) < 0 {
			t.Fatalf("row %d has other tokens", i)
		}
		var answer []int32
		for j, id := range targets {
			if id >= 0 {
				answer = append(answer, id)
				if id != wholeTargets[j] {
					t.Fatalf("row %d, target %d: %d and %d", i, j, id, wholeTargets[j])
				}
			}
		}
		text := string(tok.Decode(nil, answer))
		if !regexp.MustCompile(`^ (\d{5}|\d{10})$`).MatchString(text) || len(answer) != len(text)+1 || answer[len(answer)-1] != tok.EOS() {
			t.Errorf("row %d: the targets are %q, %d of them", i, text, len(answer))
		}
		if !strings.Contains(string(tok.Decode(nil, tokens)), text) {
			t.Errorf("row %d does not hold %q", i, text)
		}
	}
}

func TestGeneratedRefuses(t *testing.T) {
	for _, x := range []struct {
		c    Config
		want string
	}{
		{generated("poem", LossAnswer, 600), `data.generate.task: must be one of passkey, phonebook, is "poem"`},
		{generated(TaskPasskey, "some", 600), `data.generate.loss: must be one of answer, all, is "some"`},
		{generated(TaskPasskey, LossAnswer, 100), "data.seq_len: a passkey document of 101 tokens has no room for the key: it needs "},
		{generated(TaskPhonebook, LossAnswer, 100), "data.seq_len: a phone book of 3 entries does not fit a row of 101 tokens"},
	} {
		if _, err := Open(context.Background(), x.c, Train); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%v, want %s", err, x.want)
		}
	}
}
