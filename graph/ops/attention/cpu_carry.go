package attention

import (
	"fmt"

	"github.com/sambatrain/sambatrain/graph"
)

// slotsPerTask is the number of tokens that a task copies to the states.
const slotsPerTask = 64

// carryCPU binds the stateful kernel: the forward kernel, which takes its first keys from the
// states, followed by a copy of the call's last keys and values to the states.
func (c Config) carryCPU(call *graph.CPUCall) func() {
	q, k, v, o, d := call.In[0], call.In[1], call.In[2], call.Out[0], call.Dims
	key, value, position := call.In[3], call.In[4], call.In[5].I32
	tokens, slots, group := d["T"], d["W"], d["H"]/d["K"]
	workers := newSoftmaxes(call, slots)
	tasks := newQueryTasks(d)
	attend := func(i, worker int) {
		b, h, first, n := tasks.at(i)
		s, row, start := &workers[worker], b*tokens+first, int(position[b])
		s.begin(at(q, d, row, h), at(o, d, row, h), start+first, n)
		for j := max(0, start+first-slots+1); j < start; {
			slot := j % slots
			m := min(keyBlock, start-j, slots-slot)
			s.attend(at(key, d, b*slots+slot, h/group), at(value, d, b*slots+slot, h/group), j, m)
			j += m
		}
		for j := max(0, first-slots+1); j < first+n; j += keyBlock {
			row := b*tokens + j
			s.attend(at(k, d, row, h/group), at(v, d, row, h/group), start+j, min(keyBlock, first+n-j))
		}
		s.finish()
	}
	ring := newKeeper(d, k, v, key, value, position)
	kept, keep := ring.tasks(), ring.task
	return func() {
		for _, p := range position {
			if p < 0 || c.Window == 0 && int(p)+tokens > slots {
				panic(fmt.Sprintf("attention_carry: %d tokens from position %d don't fit a cache of %d: begin a new text or build with more positions", tokens, p, slots))
			}
		}
		call.Pool.Run(tasks.number, attend)
		call.Pool.Run(kept, keep)
	}
}

// keeper copies a call's last keys and values to the ring. Without a position all sequences start
// at 0.
type keeper struct {
	k, v, key, value    graph.Buffer
	position            []int32
	rows, tokens, slots int
}

func newKeeper(d graph.Dims, k, v, key, value graph.Buffer, position []int32) *keeper {
	return &keeper{k, v, key, value, position, d["B"], d["T"], d["W"]}
}

func (p *keeper) kept() int   { return min(p.tokens, p.slots) }
func (p *keeper) blocks() int { return (p.kept() + slotsPerTask - 1) / slotsPerTask }
func (p *keeper) tasks() int  { return p.rows * p.blocks() }

func (p *keeper) task(i, _ int) {
	b, lo := i/p.blocks(), i%p.blocks()*slotsPerTask
	first := p.tokens - p.kept()
	if p.position != nil {
		first += int(p.position[b])
	}
	for j := lo; j < min(lo+slotsPerTask, p.kept()); j++ {
		slot, row := p.slots*b+(first+j)%p.slots, p.tokens*(b+1)-p.kept()+j
		copy(p.key.Row(slot), p.k.Row(row))
		copy(p.value.Row(slot), p.v.Row(row))
	}
}

func keepCPU(call *graph.CPUCall) func() {
	p := newKeeper(call.Dims, call.In[0], call.In[1], call.In[2], call.In[3], nil)
	tasks, task := p.tasks(), p.task
	return func() { call.Pool.Run(tasks, task) }
}
