package forecast

import (
	"errors"

	"github.com/sambatrain/sambatrain/graph"
)

// paper is a device that loads programs but runs none: an engine is built on it as on a GPU, and
// what it would allocate is counted.
type paper struct {
	free  int64
	sizes [graph.Regions]int
}

var errPaper = errors.New("forecast: nothing runs here")

func (d *paper) Name() string               { return "paper" }
func (d *paper) FreeMemory() (int64, error) { return d.free, nil }
func (d *paper) Asynchronous() bool         { return false }
func (d *paper) Join(graph.Comm) error      { return nil }
func (d *paper) Leave() error               { return nil }
func (d *paper) Close() error               { return nil }

func (d *paper) NewMemory(sizes [graph.Regions]int) (graph.Memory, error) {
	for r, n := range sizes {
		d.sizes[r] = max(d.sizes[r], n)
	}
	return nil, nil
}

func (d *paper) Load(p *graph.Plan, _ graph.Memory) (graph.Program, error) {
	d.sizes[graph.Arena] = max(d.sizes[graph.Arena], p.Sizes[graph.Arena])
	return paperProgram{plan: p}, nil
}

func (d *paper) LoadBeside(*graph.Plan, graph.Memory, graph.Program) (graph.Program, error) {
	return nil, errPaper
}

// paperProgram has a plan, and nothing else of a program.
type paperProgram struct {
	graph.Program
	plan *graph.Plan
}

func (p paperProgram) Plan() *graph.Plan { return p.plan }

// paperComm is one of `size` processes.
type paperComm struct {
	graph.Comm
	size int
}

func (c paperComm) Rank() int { return 0 }
func (c paperComm) Size() int { return c.size }
