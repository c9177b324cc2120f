package cpu_test

import (
	"fmt"
	"math"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/graph/ops/add"
)

func open(t *testing.T, threads int) *cpu.Device {
	t.Helper()
	dev, err := cpu.New(threads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%s: error is %v, want %q", what, err, want)
	}
}

// ramp is y[i] = x[i] + w[i] + i, in tasks of one row, with a workspace.
func ramp() *graph.Spec {
	return &graph.Spec{
		Name:      "ramp",
		Signature: "x[B T N], w[B T N], ids:i32[B] -> y[B T N], n:i32[B]",
		Workspace: func(d graph.Dims, workers int) int { return workers * d["N"] },
		CPU: func(c *graph.CPUCall) func() {
			x, w, y, n := c.In[0], c.In[1], c.Out[0], c.Dims["N"]
			task := func(i, worker int) {
				scratch := c.Workspace[worker*n : (worker+1)*n]
				for j := range scratch {
					scratch[j] = float32(i*n + j)
				}
				for j, v := range scratch {
					y.Row(i)[j] = x.Row(i)[j] + w.Row(i)[j] + v
				}
			}
			return func() {
				c.Pool.Run(y.Rows, task)
				copy(c.Out[1].I32, c.In[2].I32)
			}
		},
	}
}

func rampPlan(t *testing.T) *graph.Plan {
	t.Helper()
	b := graph.NewBuilder(add.Spec)
	y := b.Apply(ramp(), b.Input("x", graph.Float32, 2, 3, 4), b.Param("w", nil, 2, 3, 4), b.Input("ids", graph.Int32, 2))
	b.Result("y", y)
	b.Result("n", y.Output(1))
	b.Result("part", b.Columns(y, 1, 3))
	p, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRun(t *testing.T) {
	p := rampPlan(t)
	x, w, want := make([]float32, 24), make([]float32, 24), make([]float32, 24)
	for i := range x {
		x[i], w[i] = float32(i)/4, float32(i*i)
		want[i] = x[i] + w[i] + float32(i)
	}
	for threads := 1; threads <= 5; threads++ {
		dev := open(t, threads)
		mem, err := dev.NewMemory(p.Sizes)
		if err != nil {
			t.Fatal(err)
		}
		if err := mem.Write(graph.Params, p.Params[0].Offset, w); err != nil {
			t.Fatal(err)
		}
		prog, err := dev.Load(p, mem)
		if err != nil {
			t.Fatal(err)
		}
		if prog.Plan() != p {
			t.Error("Plan gives another plan")
		}
		if err := prog.WriteFloats("x", x); err != nil {
			t.Fatal(err)
		}
		if err := prog.WriteInts("ids", []int32{3, 4}); err != nil {
			t.Fatal(err)
		}
		if err := prog.Run(); err != nil {
			t.Fatal(err)
		}
		got, part := make([]float32, 24), make([]float32, 12)
		if err := prog.Read("y", got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d threads: y is %v, want %v", threads, got, want)
		}
		if err := prog.Read("part", part); err != nil {
			t.Fatal(err)
		}
		for i, v := range part {
			if v != want[i/2*4+1+i%2] {
				t.Errorf("columns are %v of %v", part, want)
				break
			}
		}
		for name, want := range map[string][]float32{"y": got, "part": part} {
			if r, err := prog.Result(name); err != nil || !slices.Equal(r, want) {
				t.Errorf("%s is %v, %v; Read gives %v", name, r, err, want)
			}
		}
		if n := testing.AllocsPerRun(5, func() {
			if err := prog.Run(); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("%d threads: %v allocations a run", threads, n)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	dev := open(t, 1)
	p := rampPlan(t)
	mem, err := dev.NewMemory(p.Sizes)
	if err != nil {
		t.Fatal(err)
	}
	_, err = dev.Load(p, nil)
	wantError(t, "no memory", err, "cpu: region params has 0 elements, the plan wants 32")
	small := p.Sizes
	small[graph.Params]--
	less, err := dev.NewMemory(small)
	if err != nil {
		t.Fatal(err)
	}
	_, err = dev.Load(p, less)
	wantError(t, "small memory", err, "cpu: region params has 31 elements, the plan wants 32")
	_, err = dev.Load(p, foreign{})
	wantError(t, "another device's memory", err, "cpu: the memory belongs to another device (cpu_test.foreign)")

	build := func(s *graph.Spec, change func(p *graph.Plan)) error {
		b := graph.NewBuilder(add.Spec)
		b.Result("y", b.Apply(s, b.Input("x", graph.Float32, 2, 3, 4)))
		p, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		change(p)
		_, err = dev.Load(p, mem)
		return err
	}
	nop := func(*graph.CPUCall) func() { return func() {} }
	wantError(t, "no kernel", build(&graph.Spec{Name: "gpu_only", Signature: "x[B T N] -> y[B T N]"}, func(*graph.Plan) {}),
		"cpu: gpu_only has no CPU kernel")
	wantError(t, "bfloat16", build(&graph.Spec{Name: "op", Signature: "x[B T N] -> y[B T N]", CPU: nop}, func(p *graph.Plan) {
		p.Steps[0].Out[0].DType = graph.BFloat16
	}), "cpu: op computes in bfloat16; the CPU computes in float32")
	wantError(t, "huge arena", build(&graph.Spec{Name: "op", Signature: "x[B T N] -> y[B T N]", CPU: nop}, func(p *graph.Plan) {
		p.Sizes[graph.Arena] = math.MaxInt
	}), "cpu: region arena can't have")
	if free, _ := dev.FreeMemory(); free > 0 {
		wantError(t, "more than is free", build(&graph.Spec{Name: "op", Signature: "x[B T N] -> y[B T N]", CPU: nop}, func(p *graph.Plan) {
			p.Sizes[graph.Arena] = 1 << 44
		}), "cpu: region arena takes 70368.7 GB of memory, of ")
	}
	for _, n := range []int{-1, math.MaxInt, math.MaxInt / 4} {
		_, err := dev.NewMemory([graph.Regions]int{graph.Params: n})
		wantError(t, "NewMemory", err, "cpu: region params can't have")
	}
}

// foreign is not the memory of a CPU.
type foreign struct{}

func (foreign) Read(graph.Region, int, []float32) error  { return nil }
func (foreign) Write(graph.Region, int, []float32) error { return nil }
func (foreign) Clear(graph.Region) error                 { return nil }

func TestNamesAndLengths(t *testing.T) {
	dev := open(t, 1)
	p := rampPlan(t)
	mem, err := dev.NewMemory(p.Sizes)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := dev.Load(p, mem)
	if err != nil {
		t.Fatal(err)
	}
	floats := func(n int) []float32 { return make([]float32, n) }
	for _, c := range []struct {
		what string
		err  error
		want string
	}{
		{"no such input", prog.WriteFloats("z", floats(24)), "cpu: the plan has no input z"},
		{"no such int input", prog.WriteInts("z", nil), "cpu: the plan has no input z"},
		{"no such result", prog.Read("x", floats(24)), "cpu: the plan has no result x"},
		{"short input", prog.WriteFloats("x", floats(23)), "cpu: input x is float32 [2 3 4], not 23 elements of float32"},
		{"long input", prog.WriteInts("ids", make([]int32, 3)), "cpu: input ids is int32 [2], not 3 elements of int32"},
		{"floats for ints", prog.WriteFloats("ids", floats(2)), "cpu: input ids is int32 [2], not 2 elements of float32"},
		{"ints for floats", prog.WriteInts("x", make([]int32, 24)), "cpu: input x is float32 [2 3 4], not 24 elements of int32"},
		{"short result", prog.Read("y", floats(12)), "cpu: result y is float32 [2 3 4], not 12 elements of float32"},
		{"long columns", prog.Read("part", floats(24)), "cpu: result part is float32 [2 3 2], not 24 elements of float32"},
		{"int result", prog.Read("n", floats(2)), "cpu: result n is int32 [2], not 2 elements of float32"},
		{"too few times", prog.RunTimed(nil), "cpu: 0 times for 1 steps"},
		{"too many times", prog.RunTimed(make([]time.Duration, 2)), "cpu: 2 times for 1 steps"},
		{"read beyond", mem.Read(graph.Params, 30, floats(3)), "cpu: elements 30 to 33 are outside region params of 32"},
		{"write beyond", mem.Write(graph.Params, 32, floats(1)), "cpu: elements 32 to 33 are outside region params of 32"},
		{"write before", mem.Write(graph.Params, -1, floats(1)), "cpu: elements -1 to 0 are outside"},
		{"empty region", mem.Read(graph.ExpAvg, 0, floats(1)), "cpu: elements 0 to 1 are outside region exp_avg of 0"},
	} {
		if c.err == nil || !strings.HasPrefix(c.err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", c.what, c.err, c.want)
		}
	}
}

// TestRunTimed: times are added up, the results are those of Run, and every step is counted.
func TestRunTimed(t *testing.T) {
	dev := open(t, 2)
	b := graph.NewBuilder(add.Spec)
	ran := 0
	tick := &graph.Spec{Name: "tick", Signature: "x[B T N] -> y[B T N]", CPU: func(c *graph.CPUCall) func() {
		return func() {
			ran++
			for r := range c.In[0].Rows {
				for j, v := range c.In[0].Row(r) {
					c.Out[0].Row(r)[j] = v + 1
				}
			}
		}
	}}
	x := b.Input("x", graph.Float32, 1, 1, 2)
	b.Result("y", b.Apply(tick, b.Apply(tick, x)))
	p, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	prog, err := dev.Load(p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := prog.WriteFloats("x", []float32{1, 2}); err != nil {
		t.Fatal(err)
	}
	times := []time.Duration{time.Hour, 2 * time.Hour}
	before := time.Now()
	if err := prog.RunTimed(times); err != nil {
		t.Fatal(err)
	}
	spent := time.Since(before)
	y := make([]float32, 2)
	if err := prog.Read("y", y); err != nil {
		t.Fatal(err)
	}
	if ran != 2 || y[0] != 3 || y[1] != 4 {
		t.Errorf("%d kernels ran, y is %v", ran, y)
	}
	for i, d := range times {
		if d -= time.Duration(i+1) * time.Hour; d < 0 || d > spent {
			t.Errorf("step %d took %v of %v", i, d, spent)
		}
	}
}

// TestProgramsShareMemory: one program finds in a region what another left there; their inputs and
// states are their own.
func TestProgramsShareMemory(t *testing.T) {
	dev := open(t, 2)
	b := graph.NewBuilder(add.Spec)
	count := &graph.Spec{Name: "count", Signature: "p![N], s![N] -> y[N]", CPU: func(c *graph.CPUCall) func() {
		return func() {
			for i := range c.In[0].F32 {
				c.In[0].F32[i]++
				c.In[1].F32[i]++
				c.Out[0].F32[i] = 100*c.In[0].F32[i] + c.In[1].F32[i]
			}
		}
	}}
	b.Result("y", b.Apply(count, b.Whole(graph.Params, 3), b.State("s", 3)))
	p, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	mem, err := dev.NewMemory(p.Sizes)
	if err != nil {
		t.Fatal(err)
	}
	var progs []graph.Program
	for range 2 {
		prog, err := dev.Load(p, mem)
		if err != nil {
			t.Fatal(err)
		}
		progs = append(progs, prog)
	}
	y := make([]float32, 3)
	run := func(i int, want float32) {
		t.Helper()
		if err := progs[i].Run(); err != nil {
			t.Fatal(err)
		}
		if err := progs[i].Read("y", y); err != nil {
			t.Fatal(err)
		}
		if y[2] != want {
			t.Errorf("program %d gives %v, want %v", i, y[2], want)
		}
	}
	run(0, 101)
	run(0, 202)
	run(1, 301)
	if err := progs[0].ResetStates(); err != nil {
		t.Fatal(err)
	}
	run(0, 401)
	run(1, 502)
	if got := mem.(*cpu.Memory).Region(graph.Params); len(got) != 3 || got[0] != 5 {
		t.Errorf("the region is %v", got)
	}
}

func TestDevice(t *testing.T) {
	dev := open(t, 3)
	if name := dev.Name(); !regexp.MustCompile(`^cpu \(3 threads, \S+\)$`).MatchString(name) {
		t.Errorf("name is %q", name)
	}
	if name, want := open(t, 0).Name(), fmt.Sprintf("cpu (%d threads, ", runtime.GOMAXPROCS(0)); !strings.HasPrefix(name, want) {
		t.Errorf("name is %q, want %q", name, want)
	}
}

func TestClosed(t *testing.T) {
	for _, threads := range []int{1, 3} {
		dev := open(t, threads)
		b := graph.NewBuilder(add.Spec)
		x := b.Input("x", graph.Float32, 1, 200, 2)
		b.Result("y", b.Add(x, x))
		p, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		prog, err := dev.Load(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := dev.Close(); err != nil {
			t.Fatal(err)
		}
		wantError(t, "Run", prog.Run(), "cpu: the device is closed")
		wantError(t, "RunTimed", prog.RunTimed(make([]time.Duration, 1)), "cpu: the device is closed")
		if err := dev.Close(); err != nil {
			t.Errorf("closed twice: %v", err)
		}
	}
}

// TestInts checks the int32 results of the last two runs.
func TestInts(t *testing.T) {
	p := rampPlan(t)
	dev := open(t, 2)
	mem, err := dev.NewMemory(p.Sizes)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := dev.Load(p, mem)
	if err != nil {
		t.Fatal(err)
	}
	ints := func(name string, back int) error {
		_, err := prog.Ints(name, back)
		return err
	}
	wantError(t, "no run", ints("n", 0), "cpu: result n of 0 runs before the last of 0")
	for i := range int32(4) {
		if err := prog.WriteInts("ids", []int32{i, 2 * i}); err != nil {
			t.Fatal(err)
		}
		run := prog.Run
		if i%2 == 1 {
			run = func() error { return prog.RunTimed(make([]time.Duration, len(p.Steps))) }
		}
		if err := run(); err != nil {
			t.Fatal(err)
		}
		for back := range min(2, i+1) {
			got, err := prog.Ints("n", int(back))
			if want := []int32{i - back, 2 * (i - back)}; err != nil || !slices.Equal(got, want) {
				t.Errorf("%d runs, %d back: %v, want %v (%v)", i+1, back, got, want, err)
			}
		}
	}
	wantError(t, "too far back", ints("n", 2), "cpu: result n of 2 runs before the last of 4")
	wantError(t, "floats", ints("y", 0), "cpu: the plan has no int32 result y")
	prog.Close()
	wantError(t, "closed", ints("n", 0), "cpu: the program is closed")
}

// TestRoundFactors: a device that rounds factors does so except in calls of float32 blocks.
func TestRoundFactors(t *testing.T) {
	for _, c := range []struct{ device, precise, want bool }{
		{false, false, false}, {false, true, false}, {true, false, true}, {true, true, false},
	} {
		var got bool
		b := graph.NewBuilder(add.Spec)
		b.Result("y", b.Apply(&graph.Spec{Name: "call", Signature: "x[N] -> y[N]", CPU: func(call *graph.CPUCall) func() {
			got = call.RoundFactors
			return func() {}
		}}, b.Input("x", graph.Float32, 1)))
		p, err := b.Compile()
		if err != nil {
			t.Fatal(err)
		}
		p.Steps[0].Precise = c.precise
		dev := open(t, 1)
		if c.device {
			dev.RoundFactors()
		}
		if _, err := dev.Load(p, nil); err != nil {
			t.Fatal(err)
		}
		if got != c.want {
			t.Errorf("device %v, float32 block %v: factors are rounded: %v", c.device, c.precise, got)
		}
	}
}
