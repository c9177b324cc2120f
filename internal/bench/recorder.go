package bench

import (
	"cmp"
	"slices"
	"time"

	"github.com/sambatrain/sambatrain/graph"
)

// mode is what a recorder does while its programs run.
type mode uint8

const (
	off     mode = iota
	timing       // sums the time of each step
	tracing      // records what each worker did when
)

// recorder is a device that measures where its programs spend their time, including those of the
// optimizer, which nobody else has access to.
type recorder struct {
	graph.Device
	mode     mode
	started  time.Time
	programs []*recorded
	table    []Op
	events   []event
}

// recorded is one of a recorder's programs.
type recorded struct {
	graph.Program
	rec   *recorder
	times []time.Duration // per call, over the runs of one training step
	runs  int             // per training step
}

// event is a span of a trace, relative to its start.
type event struct {
	step       *graph.Step
	phase      string
	worker     int
	start, end time.Duration
}

// Load implements graph.Device.
func (r *recorder) Load(p *graph.Plan, m graph.Memory) (graph.Program, error) {
	prog, err := r.Device.Load(p, m)
	if err != nil {
		return nil, err
	}
	return r.record(prog), nil
}

// LoadBeside implements graph.Device.
func (r *recorder) LoadBeside(p *graph.Plan, m graph.Memory, other graph.Program) (graph.Program, error) {
	prog, err := r.Device.LoadBeside(p, m, bare(other))
	if err != nil {
		return nil, err
	}
	return r.record(prog), nil
}

func (r *recorder) record(p graph.Program) *recorded {
	own := &recorded{Program: p, rec: r, times: make([]time.Duration, len(p.Plan().Steps))}
	r.programs = append(r.programs, own)
	return own
}

// bare returns the program that the device itself made.
func bare(p graph.Program) graph.Program {
	if own, ok := p.(*recorded); ok {
		return own.Program
	}
	return p
}

// threads returns the number of a CPU's workers, 0 on a GPU.
func (r *recorder) threads() int { return threadsOf(r.Device) }

func threadsOf(dev graph.Device) int {
	if c, ok := dev.(interface{ Threads() int }); ok {
		return c.Threads()
	}
	return 0
}

// during does a training step and records it.
func (r *recorder) during(m mode, step func() error) error {
	r.mode, r.started = m, time.Now()
	defer func() { r.mode = off }()
	return step()
}

// Run implements graph.Program.
func (p *recorded) Run() error {
	switch p.rec.mode {
	case timing:
		p.runs++
		return p.RunTimed(p.times)
	case tracing:
		return p.trace()
	}
	return p.Program.Run()
}

// TakeState implements graph.Program.
func (p *recorded) TakeState(row int, from graph.Program, fromRow int) error {
	return p.Program.TakeState(row, bare(from), fromRow)
}

// trace runs the program and records what its workers did.
func (p *recorded) trace() error {
	began := time.Since(p.rec.started)
	spans, err := p.spans()
	steps := p.Plan().Steps
	for _, s := range spans {
		step := &steps[s.Step]
		p.rec.events = append(p.rec.events, event{step, p.phase(step), s.Worker, began + s.Start, began + s.End})
	}
	return err
}

// spans runs the program and returns spans by worker, or, on a device that doesn't distinguish
// workers, one span per step.
func (p *recorded) spans() ([]graph.Span, error) {
	if t, ok := p.Program.(graph.Tracer); ok {
		return t.RunTraced()
	}
	times := make([]time.Duration, len(p.times))
	err := p.RunTimed(times)
	var spans []graph.Span
	at := time.Duration(0)
	for i, d := range times {
		spans = append(spans, graph.Span{Step: i, Start: at, End: at + d})
		at += d
	}
	return spans, err
}

// phase returns the part of a training step that a call belongs to. The optimizer's programs use
// whole regions of parameters, without names.
func (p *recorded) phase(s *graph.Step) string {
	switch {
	case s.Backward:
		return "backward"
	case len(p.Plan().Params) > 0:
		return "forward"
	}
	return "update"
}

// Op is the total of one op's calls in a step.
type Op struct {
	Op    string `json:"op"`
	Calls int    `json:"calls"`
	// MS is the median over the steps.
	MS float64 `json:"ms"`
	// Share is the fraction of the time of all ops.
	Share  float64 `json:"share"`
	GFLOPs float64 `json:"gflops"`
	GBs    float64 `json:"gb_per_s"`
	// PeakShare is the fraction that the op reaches of the tighter of the machine's two limits,
	// arithmetic and memory, of which MemoryBound tells; 0 if they are unknown. It can exceed 1, see
	// peak.Peak.
	PeakShare    float64   `json:"peak_share,omitempty"`
	MemoryBound  bool      `json:"memory_bound,omitempty"`
	flops, bytes float64   // per step
	samples      []float64 // in milliseconds, one per training step
}

// sample adds what was recorded in one training step to the table of ops.
func (r *recorder) sample() {
	if len(r.table) == 0 {
		r.count()
	}
	ms := map[string]float64{}
	for _, p := range r.programs {
		for i, s := range p.Plan().Steps {
			ms[s.Spec.Name] += float64(p.times[i]) / 1e6
		}
		clear(p.times)
		p.runs = 0
	}
	for i := range r.table {
		o := &r.table[i]
		o.samples = append(o.samples, ms[o.Op])
	}
}

// count lists the ops of a training step, with their calls and work.
func (r *recorder) count() {
	index := map[string]int{}
	for _, p := range r.programs {
		for _, s := range p.Plan().Steps {
			if p.runs == 0 {
				continue
			}
			k, ok := index[s.Spec.Name]
			if !ok {
				k = len(r.table)
				index[s.Spec.Name] = k
				r.table = append(r.table, Op{Op: s.Spec.Name})
			}
			o := &r.table[k]
			o.Calls += p.runs
			if s.Spec.Cost != nil {
				c := s.Spec.Cost(s.Dims)
				o.flops += float64(p.runs) * c.FLOPs
				o.bytes += float64(p.runs) * c.Bytes
			}
		}
	}
}

// profile returns the ops of several runs of the same calls.
func (r *recorder) profile(times int, run func() error) ([]Op, error) {
	r.table = nil
	for range times {
		if err := r.during(timing, run); err != nil {
			return nil, err
		}
		r.sample()
	}
	return r.ops(), nil
}

// ops returns the table of all samples, the slowest op first.
func (r *recorder) ops() []Op {
	total := 0.0
	for i := range r.table {
		o := &r.table[i]
		o.MS = median(o.samples)
		total += o.MS
	}
	for i := range r.table {
		o := &r.table[i]
		o.Share = o.MS / total
		o.GFLOPs, o.GBs = o.flops/o.MS/1e6, o.bytes/o.MS/1e6
	}
	slices.SortStableFunc(r.table, func(a, b Op) int { return cmp.Compare(b.MS, a.MS) })
	return r.table
}

// median returns the middle element of x, or the mean of the middle two.
func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
