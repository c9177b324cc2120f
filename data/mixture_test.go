package data

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMixtureIsExact(t *testing.T) {
	for _, weights := range [][]float64{{1}, {1, 1}, {3, 1}, {0.7, 0.2, 0.1}, {1e-6, 1}, {1, 1e-6}, {5, 4, 3, 2, 1}, {1e-30, 1, 1e-30}} {
		for seed := range uint64(3) {
			m := byWeight(weights, seed)
			total := 0.0
			for _, w := range weights {
				total += w
			}
			counts := make([]int64, len(weights))
			for g := range int64(20000) {
				part, local := m.locate(g)
				if local != counts[part] {
					t.Fatalf("%v: sample %d is %d of part %d, want %d", weights, g, local, part, counts[part])
				}
				counts[part]++
				if g%997 != 0 {
					continue
				}
				for i, n := range counts {
					if due := float64(g+1) * weights[i] / total; math.Abs(float64(n)-due) > float64(len(weights)) {
						t.Fatalf("%v: after %d samples part %d has %d, its due is %.1f", weights, g+1, i, n, due)
					}
					if c := m.count(i, g+1); c != n {
						t.Fatalf("%v: count of part %d after %d is %d, want %d", weights, i, g+1, c, n)
					}
				}
			}
			// Far from the start, and not reached step by step.
			part, local := m.locate(math.MaxInt64 - 1)
			if c := m.count(part, math.MaxInt64-1); c != local {
				t.Errorf("%v: the last sample is %d of part %d, which had %d before", weights, local, part, c)
			}
		}
	}
	// A run that resumes with another version must see the same batches.
	m := byWeight([]float64{0.5, 0.3, 0.2}, 3407)
	var got []string
	for _, g := range []int64{0, 1, 2, 3, 1_000_000_007} {
		part, local := m.locate(g)
		got = append(got, fmt.Sprint(part, ":", local))
	}
	if want := "[1:0 0:0 2:0 0:1 0:500000003]"; fmt.Sprint(got) != want {
		t.Errorf("samples are %v, want %s", got, want)
	}
}

// mixed is a mixture of three folders, the last of which has no validation split. Row tokens
// distinguish the sources.
func mixed(t testing.TB) Config {
	t.Helper()
	c := DefaultConfig()
	c.SeqLen = 16
	c.ValidationFraction = 0.3
	for i, name := range []string{"a", "b", "c"} {
		files := map[string]string{}
		for j := range []int{40, 25, 60}[i] {
			files[fmt.Sprint(j)] = strings.Repeat(name, 20+7*j)
		}
		s := WeightedSource{Name: name, Weight: []float64{0.5, 0.3, 0.2}[i], Shards: filepath.Join(t.TempDir(), name)}
		s.Text.Path = writeFiles(t, files)
		c.Mixture = append(c.Mixture, s)
		one := c.sources()[i].config
		if name == "c" {
			one.ValidationFraction = 0
		}
		mustPrepare(t, one)
		c.Mixture[i].Text = TextConfig{}
	}
	return c
}

func TestMixtureBatches(t *testing.T) {
	c := mixed(t)
	d := mustOpen(t, c, Train)
	for _, p := range d.parts {
		p.order.spanBlocks, p.order.groupSpans = 3, 4
	}
	const batch = 10
	steps := 3 * d.Blocks() / batch
	counts := map[byte]int64{}
	seen := map[string]map[int64]int{} // source -> block -> times
	rows := make([]int32, batch*17)
	l, err := NewLoader(d, batch, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	again := make([]int32, batch*17)
	for s := range steps {
		if _, err := l.Next(rows); err != nil {
			t.Fatal(err)
		}
		if err := d.Batch(s, batch, again); err != nil || !slices.Equal(rows, again) {
			t.Fatalf("batch %d differs from Batch (%v)", s, err)
		}
		for r := range batch {
			row := rows[r*17 : (r+1)*17]
			i := slices.IndexFunc(row, func(id int32) bool { return id != 256 })
			counts[byte(row[i])]++
			part, sample := d.mix.locate(s*batch + int64(r))
			name := d.names[part]
			if name != string(byte(row[i])) {
				t.Fatalf("a row of %s has the text of %c", name, row[i])
			}
			if seen[name] == nil {
				seen[name] = map[int64]int{}
			}
			seen[name][d.parts[part].order.blockOf(sample)]++
		}
	}
	for i, e := range d.Read(steps * batch) {
		if want := counts[e.Name[0]]; e.Rows != want || e.Tokens != want*int64(c.SeqLen) {
			t.Errorf("source %s has %d rows, Read says %d with %d tokens", e.Name, want, e.Rows, e.Tokens)
		}
		if want := float64(e.Rows) / float64(d.parts[i].order.blocks); e.Epochs != want {
			t.Errorf("source %s: %v epochs, want %v", e.Name, e.Epochs, want)
		}
		// Nothing is read again before everything has been read equally often.
		low, high := math.MaxInt, 0
		for b := range d.parts[i].order.blocks {
			low, high = min(low, seen[e.Name][b]), max(high, seen[e.Name][b])
		}
		if high-low > 1 || float64(low) > e.Epochs || float64(high) < e.Epochs {
			t.Errorf("source %s: blocks were read %d to %d times in %.2f epochs", e.Name, low, high, e.Epochs)
		}
	}
	if share := float64(counts['a']) / float64(steps*batch); math.Abs(share-0.5) > 0.02 {
		t.Errorf("source a has %.3f of the rows, want 0.5", share)
	}

	v := mustOpen(t, c, Validation)
	if len(v.parts) != 2 || v.Blocks() != v.parts[0].order.blocks+v.parts[1].order.blocks {
		t.Errorf("validation has %d parts with %d blocks", len(v.parts), v.Blocks())
	}
	// The blocks of all parts, one part after the other, and then all of them again.
	var want, order [][2]int64
	for epoch := range int64(2) {
		for part, p := range v.parts {
			for block := range p.order.blocks {
				want = append(want, [2]int64{int64(part), epoch*p.order.blocks + block})
			}
		}
	}
	for i := range want {
		part, local := v.mix.locate(int64(i))
		order = append(order, [2]int64{int64(part), local})
	}
	if !slices.Equal(order, want) {
		t.Errorf("validation is read in the order %v, want %v", order, want)
	}
	if v.Read(1) == nil || mustOpen(t, c, Train).Fingerprint() != d.Fingerprint() {
		t.Error("no epochs, or another fingerprint")
	}
	c.Mixture[0].Weight = 2
	if mustOpen(t, c, Train).Fingerprint() == d.Fingerprint() {
		t.Error("other weights have the same fingerprint")
	}
}

// TestMixtureOrders: sources of the same size are read in different orders.
func TestMixtureOrders(t *testing.T) {
	c := DefaultConfig()
	c.ValidationFraction, c.Mixture = 0, []WeightedSource{{Name: "a", Weight: 1, Shards: "x"}, {Name: "b", Weight: 1, Shards: "y"}}
	var orders [][]int64
	for _, s := range c.sources() {
		o := newOrder(1000, 1<<19, s.config.Seed)
		var list []int64
		for sample := range int64(20) {
			list = append(list, o.blockOf(sample))
		}
		orders = append(orders, list)
	}
	if slices.Equal(orders[0], orders[1]) {
		t.Errorf("both are read in the order %v", orders[0])
	}
}

// TestLayouts reads the same global batches in every layout of processes and micro-batches, also
// after a change of layout at some step.
func TestLayouts(t *testing.T) {
	const batch, steps = 8, 60
	for name, d := range map[string]*Dataset{"one source": shuffledDataset(t, 3407), "mixture": mustOpen(t, mixed(t), Train)} {
		width := d.SeqLen() + 1
		read := func(processes, micro int, from, to int64) []int32 {
			out := make([]int32, (to-from)*batch*int64(width))
			for rank := range processes {
				l, err := NewShareLoader(d, Share{rank, processes}, batch, from)
				if err != nil {
					t.Fatal(err)
				}
				rows := make([]int32, batch/processes*width)
				for s := from; s < to; s++ {
					if _, err := l.Next(rows); err != nil {
						t.Fatal(err)
					}
					// In the order in which the engine uses them: one micro-batch after another.
					at := ((s-from)*batch + int64(rank*batch/processes)) * int64(width)
					for m := 0; m < len(rows); m += micro * width {
						copy(out[at+int64(m):], rows[m:m+micro*width])
					}
				}
				l.Close()
			}
			return out
		}
		want := read(1, 8, 0, steps)
		for _, layout := range [][2]int{{2, 4}, {4, 2}, {8, 1}, {1, 2}} {
			if !slices.Equal(read(layout[0], layout[1], 0, steps), want) {
				t.Errorf("%s: %d processes with micro-batches of %d see other tokens", name, layout[0], layout[1])
			}
			const stop = 23
			resumed := append(read(layout[0], layout[1], 0, stop), read(2, 4, stop, steps)...)
			if !slices.Equal(resumed, want) {
				t.Errorf("%s: resumed from %v into 2x4, other tokens are seen", name, layout)
			}
		}
	}
	_, err := NewShareLoader(shuffledDataset(t, 1), Share{1, 3}, 8, 0)
	checkError(t, err, "", "data: a batch of 8 rows has no share 1 of 3")
}

func TestMixtureRefuses(t *testing.T) {
	source := func(name, shards string, weight float64) WeightedSource {
		return WeightedSource{Name: name, Shards: shards, Weight: weight}
	}
	for _, test := range []struct {
		edit func(*Config)
		want string
	}{
		{func(c *Config) { c.Shards = "x" }, "data.mixture: replaces data.shards and data.text; move them into a source of it"},
		{func(c *Config) { c.Mixture[1].Name = "b\nc" }, `data.mixture[1].name: "b\nc" holds a control character, and logs have it in their lines: choose another`},
		{func(c *Config) { c.Mixture[1].Name = "a" }, `data.mixture[1].name: "a" is there twice`},
		{func(c *Config) { c.Mixture[1].Name = "2x" }, `data.mixture[1].name: "2x" is what results at that row length are called (val_loss@2x): choose another`},
		{func(c *Config) { c.Mixture[1].Name = "" }, "data.mixture[1].name: is empty: name the source"},
		{func(c *Config) { c.Mixture[1].Shards = "" }, "data.mixture[1].shards: is empty: name the folder of token shards"},
		{func(c *Config) { c.Mixture[0].Weight, c.Mixture[1].Weight = 1e308, 1e308 }, "data.mixture[1].weight: the sum of the weights up to this one is infinite: lower them"},
		{func(c *Config) { c.Mixture[1].Shards = "x" }, "data.mixture[1].shards: x is there twice: add up the weights"},
		{func(c *Config) { c.Mixture[1].Shards = "./x/" }, "data.mixture[1].shards: ./x/ is there twice: add up the weights"},
		{func(c *Config) { c.Mixture[0].Weight = 0 }, "data.mixture[0].weight: must be above 0, is 0"},
		{func(c *Config) { c.Mixture[0].Weight = math.NaN() }, "data.mixture[0].weight: must be above 0, is NaN"},
		{func(c *Config) { c.SeqLen = 0 }, "data.mixture[0] (a): data.seq_len: must be at least 1, is 0"},
	} {
		c := DefaultConfig()
		c.Mixture = []WeightedSource{source("a", "x", 1), source("b", "y", 2)}
		test.edit(&c)
		checkError(t, c.Validate(), "", test.want)
	}
	c := mixed(t)
	if err := os.RemoveAll(c.Mixture[1].Shards); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), c, Train)
	checkError(t, err, c.Mixture[1].Shards, "data.mixture[1] (b): data.shards: no manifest.json in DIR: run `sambatrain data prepare` first, or choose another folder")
}
