package forecast

import (
	"slices"

	"github.com/sambatrain/sambatrain/graph"
)

// stretch is the duration of a program.
type stretch struct {
	seconds float64
	// waits is the part of it in which nothing is computed while waiting for numbers of other
	// processes.
	waits float64
}

func (a stretch) plus(b stretch) stretch { return stretch{a.seconds + b.seconds, a.waits + b.waits} }

func (a stretch) times(n int) stretch { return stretch{float64(n) * a.seconds, float64(n) * a.waits} }

// underway is a collective that has been started.
type underway struct {
	step *graph.Step
	end  float64
}

// walk simulates a plan as the CUDA executor would run it: kernels one after the other on one
// stream, and collectives on another, each as soon as the kernels before it are done. A kernel
// waits for the collectives that touch its memory. The time of ops whose speed was not measured is
// added to guessed.
func (m *Machine) walk(p *graph.Plan, gpus int, guessed map[string]float64) stretch {
	var now, busy, waits float64 // end times of the kernels' stream and of the collectives', and the total waiting time
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

// beside returns the duration of a kernel when a collective runs for the given time alongside it.
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

// vectorBytes returns the length of a collective's whole vector.
func vectorBytes(s *graph.Step) float64 {
	most := 0
	for _, t := range slices.Concat(s.In, s.Out) {
		most = max(most, t.Rows*t.Cols*t.DType.Size())
	}
	return float64(most)
}

// touches reports whether a kernel and a collective use the same memory.
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
