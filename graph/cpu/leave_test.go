package cpu_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
)

// closing is a Comm that counts how often it is closed.
type closing struct {
	graph.Comm
	closed int
}

func (c *closing) Close() error {
	c.closed++
	return nil
}

// TestLeave: programs that were loaded as part of a run of several processes end with it.
func TestLeave(t *testing.T) {
	d := open(t, 1)
	load := func() graph.Program {
		t.Helper()
		p, err := d.Load(counter(t, 2, 3), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Run(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	comm := &closing{}
	if err := d.Join(comm); err != nil {
		t.Fatal(err)
	}
	joined := load()
	for range 2 {
		if err := d.Leave(); err != nil || comm.closed != 1 {
			t.Errorf("leaving: %v, closed %d times", err, comm.closed)
		}
	}
	wantError(t, "Run", joined.Run(), cpu.ErrProgramClosed.Error())
	wantError(t, "Read", joined.Read("y", make([]float32, 6)), cpu.ErrProgramClosed.Error())
	if err := joined.Close(); err != nil {
		t.Error(err)
	}
	load()
}
