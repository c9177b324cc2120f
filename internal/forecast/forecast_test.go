package forecast

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/ops/add"
	"github.com/sambatrain/sambatrain/graph/ops/linear"
	"github.com/sambatrain/sambatrain/internal/runlog"
	"github.com/sambatrain/sambatrain/recipes"
)

func machine(t *testing.T) *Machine {
	t.Helper()
	c, err := LoadCalibration("h100")
	if err != nil {
		t.Fatal(err)
	}
	n, err := LoadInterconnect("nvlink-ib400")
	if err != nil {
		t.Fatal(err)
	}
	return &Machine{Calibration: c, Interconnect: n, Contention: 0.05}
}

func recipe(t *testing.T, name string, sets ...string) *recipes.Recipe {
	t.Helper()
	r, err := recipes.Load(name, sets...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// measured is a step of one micro-batch.
type measured struct {
	recipe       string
	gpus         int
	shard        string
	rows         int // per GPU
	tokensSecond float64
}

// measurements returns the steps listed in docs/bench.
func measurements(t *testing.T) []measured {
	t.Helper()
	var list []measured
	for _, page := range []struct {
		file                          string
		row                           *regexp.Regexp
		recipe, gpus, shard, rows, at int // groups of row; 0 if there is none
		want                          int
	}{
		{"h100.md", regexp.MustCompile(`(?m)^\| Samba (\S+) \| (\d+)[^|]*\| ([\d,]+)`), 1, 0, 0, 2, 3, 4},
		{"h100x2.md", regexp.MustCompile(`(?m)^\| samba-(\S+) \| (\d+) \| (\w*) ?\| (\d+) \| [^|]+\| ([\d,]+) \|`), 1, 2, 3, 4, 5, 8},
	} {
		text, err := os.ReadFile("../../docs/bench/" + page.file)
		if err != nil {
			t.Fatal(err)
		}
		all := page.row.FindAllStringSubmatch(string(text), -1)
		if len(all) < page.want {
			t.Fatalf("docs/bench/%s has %d rows of steps, want %d", page.file, len(all), page.want)
		}
		for _, g := range all {
			m := measured{recipe: "samba-" + strings.ToLower(g[page.recipe]), gpus: 1, shard: recipes.ShardNone, rows: number(t, g[page.rows])}
			if page.gpus > 0 {
				m.gpus = number(t, g[page.gpus])
			}
			if g[page.shard] != "" && page.shard > 0 {
				m.shard = g[page.shard]
			}
			m.tokensSecond = float64(number(t, g[page.at]))
			list = append(list, m)
		}
	}
	return list
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.ReplaceAll(text, ",", ""))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestMeasured: forecasts are within 10% of the measurements. If docs/bench is newer than the
// calibration, scripts/scale/update.sh updates it.
func TestMeasured(t *testing.T) {
	m := machine(t)
	for _, c := range measurements(t) {
		r := recipe(t, c.recipe, fmt.Sprintf("train.batch_size=%d", c.gpus*c.rows), fmt.Sprintf("train.micro_batch=%d", c.rows))
		f, err := m.Predict(r, c.gpus, Layout{c.shard, c.rows})
		if err != nil {
			t.Fatal(err)
		}
		off := f.TokensPerSecond/c.tokensSecond - 1
		t.Logf("| %s | %d | %s | %d | %s | %s | %+.1f%% |", c.recipe, c.gpus, c.shard, c.rows, runlog.Thousands(c.tokensSecond), runlog.Thousands(f.TokensPerSecond), 100*off)
		if !(math.Abs(off) <= 0.1) {
			t.Errorf("%s on %d GPUs, shard %s: %.0f tokens/s, measured %.0f: off by %+.1f%%", c.recipe, c.gpus, c.shard, f.TokensPerSecond, c.tokensSecond, 100*off)
		}
	}
}

// TestFloat32Sublayers: sublayers in float32 take longer, even more so if they include attention,
// whose rate is known; the rates of products and of ops limited by memory are guessed.
func TestFloat32Sublayers(t *testing.T) {
	m := machine(t)
	last := 0.0
	for _, c := range []struct {
		sublayers int
		longer    float64 // than with fewer
		guessed   bool
	}{{0, 1, false}, {2, 1.3, true}, {3, 1.8, true}} {
		r := recipe(t, "samba-421m", "train.batch_size=8", "model.layers.repeat=3", fmt.Sprintf("run.float32_sublayers=%d", c.sublayers))
		f, err := m.Predict(r, 1, Layout{recipes.ShardNone, 8})
		if err != nil {
			t.Fatal(err)
		}
		if f.StepMS < c.longer*last {
			t.Errorf("%d sublayers in float32: %.0f ms per step, %.0f with fewer", c.sublayers, f.StepMS, last)
		}
		if slices.Contains(f.Guessed, "linear_dw") != c.guessed || slices.Contains(f.Guessed, "attention_rotary_backward") {
			t.Errorf("%d sublayers in float32: guessed are %q", c.sublayers, f.Guessed)
		}
		last = f.StepMS
	}
}

// TestNetwork: a faster network makes a step shorter, down to the time of computation.
func TestNetwork(t *testing.T) {
	r := recipe(t, "samba-421m", "train.batch_size=128")
	for _, shard := range recipes.Shards {
		last := math.Inf(1)
		for _, gbs := range []float64{5, 50, 500, 1e9} {
			m := machine(t)
			m.Contention, m.Calibration.Several = 0, 0
			m.Interconnect.Link = Path{GBs: gbs}
			m.Interconnect.Net = Path{GBs: gbs}
			f, err := m.Predict(r, 16, Layout{shard, 8})
			if err != nil {
				t.Fatal(err)
			}
			if f.StepMS > last || f.WaitMS > f.StepMS {
				t.Errorf("%s, %v GB/s: a step of %.1f ms, %.1f of which waits, and %.1f ms at less", shard, gbs, f.StepMS, f.WaitMS, last)
			}
			if last = f.StepMS; gbs > 1e6 && f.WaitMS > 1 {
				t.Errorf("%s: %.2f ms of waiting without a network", shard, f.WaitMS)
			}
		}
	}
}

// TestMemory: sharded data takes a fraction of the memory, as planned.
func TestMemory(t *testing.T) {
	r := recipe(t, "samba-421m", "train.batch_size=64")
	const gpus, parameters = 8, 421_793_280
	bytes := map[string]int64{}
	for _, shard := range recipes.Shards {
		f, err := machine(t).Predict(r, gpus, Layout{shard, 8})
		if err != nil {
			t.Fatal(err)
		}
		bytes[shard] = f.MemoryBytes
	}
	saved := float64(bytes[recipes.ShardNone] - bytes[recipes.ShardOptimizer])
	if want := 8.0 * parameters * (gpus - 1) / gpus; !(math.Abs(saved/want-1) <= 0.01) {
		t.Errorf("a sharded optimizer saves %.3g bytes, want about %.3g", saved, want)
	}
	if bytes[recipes.ShardFull] >= bytes[recipes.ShardOptimizer] {
		t.Errorf("bytes of a GPU: %v", bytes)
	}
}

// TestChoose: the layouts that fit are sorted by speed, and impossible ones are refused.
func TestChoose(t *testing.T) {
	m := machine(t)
	list, err := m.Choose(recipe(t, "samba-3.8b"), 16, Layout{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(list, func(a, b *Forecast) int { return int(math.Copysign(1, a.StepMS-b.StepMS)) }) || len(list) < 3 {
		t.Errorf("%d layouts, not the fastest first", len(list))
	}
	for _, f := range list {
		if f.MemoryBytes > int64(m.Calibration.Memory) || f.MicroBatch*f.MicroBatches*f.GPUs != 2048 {
			t.Errorf("%+v", f)
		}
	}
	small := machine(t)
	small.Calibration.Memory = 20e9
	for _, c := range []struct {
		m      *Machine
		recipe string
		gpus   int
		layout Layout
		want   string
	}{
		{m, "samba-421m", 0, Layout{}, "--gpus: must be at least 1"},
		{m, "samba-421m", 1024, Layout{}, "512 rows are too few for 1024 GPUs"},
		{m, "samba-421m", 3, Layout{}, "512 rows are not a multiple of 3 GPUs"},
		{m, "samba-421m", 64, Layout{MicroBatch: 16}, "train.micro_batch: 16 does not divide the 8 rows"},
		{m, "quickstart", 1, Layout{}, "run.dtype: speeds are known of bfloat16 alone"},
		{small, "samba-3.8b", 1, Layout{}, "parameters, gradients and moments alone take"},
	} {
		if _, err := c.m.Choose(recipe(t, c.recipe), c.gpus, c.layout); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s on %d GPUs: %v, want %q", c.recipe, c.gpus, err, c.want)
		}
	}
}

// TestCollectives compares with times computed by hand: a gigabyte at 100 GB/s within a node of 4,
// and 50 GB/s between nodes, with no latency or with 10 and 100 microseconds per hop.
func TestCollectives(t *testing.T) {
	n := Interconnect{GPUsPerNode: 4, Link: Path{GBs: 100}, Net: Path{GBs: 50}}
	slow := n
	slow.Link.Micros, slow.Net.Micros = 10, 100
	for _, c := range []struct {
		n    Interconnect
		kind graph.CollectiveKind
		gpus int
		want float64
	}{
		{n, graph.AllReduce, 1, 0},
		{n, graph.ReduceScatter, 2, 0.005},
		{n, graph.AllGather, 4, 0.0075},
		{n, graph.AllReduce, 4, 0.015},
		{n, graph.AllGather, 8, 0.0175},
		{n, graph.AllReduce, 8, 0.035},
		{slow, graph.ReduceScatter, 4, 0.0075 + 3*10e-6},
		{slow, graph.ReduceScatter, 8, 0.0175 + 6*10e-6 + 2*100e-6},
		{n, graph.AllGather, 5, 0.016},
		{slow, graph.AllReduce, 16, 0.0375 + 2*(3*10e-6+2*100e-6)},
	} {
		want := c.want
		if c.gpus > 1 {
			want += launch
		}
		if got := c.n.seconds(c.kind, 1e9, c.gpus); !(math.Abs(got-want) <= 1e-9) {
			t.Errorf("call %d among %d: %.6f s, want %.6f", c.kind, c.gpus, got, want)
		}
	}
}

// TestUnaligned: a product of bfloat16 is slow if rows of an operand or of the result are unaligned.
func TestUnaligned(t *testing.T) {
	c := machine(t).Calibration
	slot := func(cols int) graph.Slot {
		return graph.Slot{Rows: 4096, Cols: cols, Stride: cols, DType: graph.BFloat16}
	}
	seconds := func(k, m int) float64 {
		r, err := linear.Spec().ResolveDims(graph.Dims{"B": 1, "T": 4096, "K": k, "M": m})
		if err != nil {
			t.Fatal(err)
		}
		s, known := c.op(&graph.Step{Resolved: r, In: []graph.Slot{slot(k)}, Out: []graph.Slot{slot(m)}})
		if !known {
			t.Error("the rate of linear is not known")
		}
		return s / (float64(k) * float64(m))
	}
	aligned := seconds(4096, 4096)
	for _, d := range [][2]int{{4095, 4096}, {4096, 4095}, {4095, 4095}} {
		if got := seconds(d[0], d[1]); !(got > 2*aligned) {
			t.Errorf("K=%d, M=%d: %.3g times the time of aligned rows", d[0], d[1], got/aligned)
		}
	}
}

// TestPreciseMoves: in float32 an op that moves memory takes as long as in bfloat16, or longer.
func TestPreciseMoves(t *testing.T) {
	c := machine(t).Calibration
	r, err := add.Spec(2).Resolve([]graph.Shape{{4096, 4096}, {4096, 4096}})
	if err != nil {
		t.Fatal(err)
	}
	step := graph.Step{Resolved: r}
	plain, _ := c.op(&step)
	for _, faster := range []float64{1, 2} {
		c.Ops["add"] = Rate{GBs: c.Moves.GBs * faster}
		step.Precise = true
		if got, _ := c.op(&step); !(math.Abs(got/plain-1) <= 1e-9) {
			t.Errorf("at %v times the rate of other ops %v s, want %v", faster, got, plain)
		}
	}
	c.Ops["add"] = Rate{GBs: c.Moves.GBs / 2}
	if got, _ := c.op(&step); !(got > 1.5*plain) {
		t.Errorf("at half the rate of other ops %v s, others take %v", got, plain)
	}
}

func TestCounts(t *testing.T) {
	for text, want := range map[string][]int{"8": {8}, "1,3,64": {1, 3, 64}, "1-8": {1, 2, 4, 8}, "2-9,24": {2, 4, 8, 24}} {
		if got, err := Counts(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "8-2", "a", "1,", "1-", "1.5", "08", "1-4x", "99999999999"} {
		if got, err := Counts(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestFiles(t *testing.T) {
	for _, name := range Interconnects() {
		n, err := LoadInterconnect(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := LoadInterconnect("string"); err == nil || !strings.Contains(err.Error(), `must be one of nvlink-eth100, nvlink-ib400, pcie-ib200, is "string"`) {
		t.Error(err)
	}
	own, err := files.ReadFile("h100.yaml")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mine.yaml")
	for _, c := range []struct{ from, to, want string }{
		{"", "", ""},
		{" linear: {", " linear: {gbs: 3, ", "ops.linear: give one of tflops and gbs"},
		{"price: 2.50", "price: -1", "price: must be above 0"},
		{"memory: 79GB", "memory: 79", "such as 32GB"},
		{"call_us: 5", "call_s: 5", "unknown field"},
	} {
		if err := os.WriteFile(path, []byte(strings.Replace(string(own), c.from, c.to, 1)), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := LoadCalibration(path)
		if (c.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q: %v, want %q", c.to, err, c.want)
		}
	}
	if _, err := LoadCalibration("a100"); err == nil || !strings.Contains(err.Error(), `--gpu: "a100" is neither h100 nor a file`) {
		t.Error(err)
	}
}
