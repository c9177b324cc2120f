package forecast

import (
	"slices"

	"github.com/sambatrain/sambatrain/graph"
)

// stretch is how long a program takes.
type stretch struct {
	seconds float64
	// waits is the part of it in which nothing is computed: numbers of other processes are
	// waited for.
	waits float64
}

func (a stretch) plus(b stretch) stretch { return stretch{a.seconds + b.seconds, a.waits + b.waits} }

func (a stretch) times(n int) stretch { return stretch{float64(n) * a.seconds, float64(n) * a.waits} }

// underway is a collective that has been begun.
type underway struct {
	step *graph.Step
	end  float64
}

// walk runs a plan on paper, as the CUDA executor would: kernels one after the other on
// one stream, collectives on another, each as soon as the kernels before it are done. A
// kernel waits for the collectives that touch its memory. The time of ops whose speed was
// not measured is added to guessed.
func (m *Machine) walk(p *graph.Plan, gpus int, guessed map[string]float64) stretch {
	var now, busy, waits float64 // of the kernels' stream, of the collectives', of their difference
	var open []underway
	for i := range p.Steps {
		s := &p.Steps[i]
		if kind := s.Spec.Collective; kind != nil {
			busy = max(now, busy) + m.Interconnect.seconds(*kind, vectorBytes(s), gpus)
			open = append(open, underway{s, busy})
			continue
		}
		for _, c := range open {
			if c.end > now && touches(s, c.step) {
				waits += c.end - now
				now = c.end
			}
		}
		open = slices.DeleteFunc(open, func(c underway) bool { return c.end <= now })
		took, known := m.Calibration.op(s)
		if !known {
			guessed[s.Spec.Name] += took
		}
		now += m.beside(took, busy-now)
	}
	if busy > now {
		waits += busy - now
		now = busy
	}
	return stretch{now, waits}
}

// beside is how long a kernel takes while a collective is under way for so long.
func (m *Machine) beside(took, collective float64) float64 {
	slower := 1 + m.Contention
	switch {
	case collective <= 0:
		return took
	case took*slower <= collective:
		return took * slower
	}
	return collective + took - collective/slower
}

// vectorBytes is the length of the whole vector of a collective.
func vectorBytes(s *graph.Step) float64 {
	most := 0
	for _, t := range slices.Concat(s.In, s.Out) {
		most = max(most, t.Rows*t.Cols*t.DType.Size())
	}
	return float64(most)
}

// touches reports whether a kernel and a collective have memory in common.
func touches(s, collective *graph.Step) bool {
	for _, a := range slices.Concat(s.In, s.Out) {
		for _, b := range slices.Concat(collective.In, collective.Out) {
			if a.Overlaps(b) {
				return true
			}
		}
	}
	return false
}
