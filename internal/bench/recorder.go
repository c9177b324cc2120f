package bench

import (
	"cmp"
	"slices"
	"time"

	"github.com/sambatrain/sambatrain/graph"
)

// mode is what a recorder does with the runs of its programs.
type mode uint8

const (
	off     mode = iota
	timing       // adds up each step's time
	tracing      // notes when each worker did what
)

// recorder is a device that can say where the time of its programs went: those of
// the optimizer, too, which are nobody else's to see.
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
	times []time.Duration // by call, over the runs of one training step
	runs  int             // of a training step
}

// event is a span of a trace, counted from the trace's beginning.
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

// bare is the program that the device itself made.
func bare(p graph.Program) graph.Program {
	if own, ok := p.(*recorded); ok {
		return own.Program
	}
	return p
}

// threads is the number of a CPU's workers, 0 on a GPU.
func (r *recorder) threads() int {
	if c, ok := r.Device.(interface{ Threads() int }); ok {
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

// trace runs the program and keeps what its workers did.
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

// spans runs the program: by worker, or on a device that doesn't tell them apart one
// step after the other.
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

// phase is the part of a training step that a call belongs to. The optimizer's
// programs take parameters whole, and know none by name.
func (p *recorded) phase(s *graph.Step) string {
	switch {
	case s.Backward:
		return "backward"
	case len(p.Plan().Params) > 0:
		return "forward"
	}
	return "update"
}

// Op is one op's part of a step, over all its calls.
type Op struct {
	Op    string `json:"op"`
	Calls int    `json:"calls"`
	// MS is the median over the steps.
	MS float64 `json:"ms"`
	// Share is the part of the time of all ops.
	Share  float64 `json:"share"`
	GFLOPs float64 `json:"gflops"`
	GBs    float64 `json:"gb_per_s"`
	// PeakShare is the part of the tighter of the machine's two limits, arithmetic and
	// memory, that the op reaches; 0 where they are not known.
	PeakShare    float64   `json:"peak_share,omitempty"`
	flops, bytes float64   // of a step
	samples      []float64 // milliseconds, a training step each
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

// profile is the ops of several runs of the same calls.
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

// ops is the table of all samples, the slowest op first.
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

// median is the middle of x, the mean of the middle two of an even number.
func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}
