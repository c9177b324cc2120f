package optim_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/graph/cpu"
	"github.com/sambatrain/sambatrain/optim"
)

// hub connects the processes of a run that are goroutines here.
type hub struct {
	size    int
	posted  [][]float32 // what each process sends in the current call
	arrived int
	call    int
	mu      sync.Mutex
	turn    *sync.Cond
}

func newHub(size int) *hub {
	h := &hub{size: size, posted: make([][]float32, size)}
	h.turn = sync.NewCond(&h.mu)
	return h
}

// meet waits for all processes.
func (h *hub) meet() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.arrived++; h.arrived == h.size {
		h.arrived = 0
		h.call++
		h.turn.Broadcast()
		return
	}
	for call := h.call; call == h.call; {
		h.turn.Wait()
	}
}

// exchange returns what all processes send, in rank order.
func (h *hub) exchange(rank int, x []float32) [][]float32 {
	h.posted[rank] = slices.Clone(x)
	h.meet()
	all := slices.Clone(h.posted)
	h.meet()
	return all
}

// member is the Comm of one process.
type member struct {
	*hub
	rank int
}

func floats(v graph.Vector) []float32 { return unsafe.Slice((*float32)(v.Address), v.Elements) }

func (m member) Rank() int    { return m.rank }
func (m member) Size() int    { return m.size }
func (m member) Close() error { return nil }

func (m member) AllReduce(from, to graph.Vector) error {
	sum := make([]float32, from.Elements)
	for _, x := range m.exchange(m.rank, floats(from)) {
		for i, v := range x {
			sum[i] += v
		}
	}
	copy(floats(to), sum)
	return nil
}

func (m member) ReduceScatter(from, to graph.Vector) error {
	sum := make([]float32, to.Elements)
	for _, x := range m.exchange(m.rank, floats(from)) {
		for i, v := range x[m.rank*to.Elements:][:to.Elements] {
			sum[i] += v
		}
	}
	copy(floats(to), sum)
	return nil
}

func (m member) AllGather(from, to graph.Vector) error {
	copy(floats(to), slices.Concat(m.exchange(m.rank, floats(from))...))
	return nil
}

func (m member) Broadcast(x graph.Vector, root int) error {
	copy(floats(x), m.exchange(m.rank, floats(x))[root])
	return nil
}

// piece copies this process's pieces of a whole region into a region of pieces only, or back.
func piece(s optim.Shard, whole, pieces []float32, back bool) {
	s.Pieces(func(at, local, n int) {
		if back {
			copy(whole[at:at+n], pieces[local:local+n])
		} else {
			copy(pieces[local:local+n], whole[at:at+n])
		}
	})
}

// TestProcesses: several processes that share an update come to the parameters, moments and norms
// of one that does it alone.
func TestProcesses(t *testing.T) {
	params, _ := slots()
	for _, c := range []struct {
		name, decayed string
		params        []graph.ParamSlot
	}{
		{"all decay", optim.DecayAll, params},
		{"matrices decay", optim.DecayMatrices, params},
		{"nothing decays", optim.DecayMatrices, []graph.ParamSlot{{Name: "model.norm_f.weight", Shape: graph.Shape{n - padding}}}},
	} {
		o, params := settings(1), c.params
		o.Decayed = c.decayed
		alone := newMachineOf(t, 1, o, params, false)
		norms := alone.train(t, 1)
		for _, size := range []int{1, 2, 3} {
			for _, full := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %d processes, full %v", c.name, size, full), func(t *testing.T) {
					h, buckets := newHub(size), graph.NewBuckets(n, 40_000, size)
					whole := map[graph.Region][]float32{}
					for _, r := range []graph.Region{graph.Params, graph.ExpAvg, graph.ExpAvgSq} {
						whole[r] = make([]float32, buckets.Length)
					}
					var all sync.WaitGroup
					for rank := range size {
						all.Go(func() {
							shard := optim.Shard{Rank: rank, Size: size, Buckets: buckets, Full: full}
							if err := trainMember(member{h, rank}, shard, o, params, norms, whole); err != nil {
								t.Errorf("process %d: %v", rank, err)
							}
						})
					}
					all.Wait()
					for r, x := range whole {
						near(t, r.String(), x[:n], float64s(alone.read(t, r)))
						if slices.ContainsFunc(x[n:], func(x float32) bool { return x != 0 }) {
							t.Errorf("the end of %v is %v", r, x[n:])
						}
					}
				})
			}
		}
	}
}

// trainMember trains one process, and writes its pieces to whole. After a reduction, the gradients
// outside of its own pieces are undefined; here they are NaN.
func trainMember(m member, shard optim.Shard, o optim.AdamW, params []graph.ParamSlot, norms []float64, whole map[graph.Region][]float32) error {
	dev, err := cpu.New(1)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := dev.Join(m); err != nil {
		return err
	}
	length := shard.Buckets.Length
	held, moments := shard.Parameters(length), shard.Moments(length)
	if moments*shard.Size != length {
		return fmt.Errorf("%d processes have %d of %d moments each", shard.Size, moments, length)
	}
	mem, err := dev.NewMemory([graph.Regions]int{graph.Params: held, graph.Grads: held, graph.ExpAvg: moments, graph.ExpAvgSq: moments})
	if err != nil {
		return err
	}
	opt, err := optim.New(dev, mem, params, length, o, false, shard)
	if err != nil {
		return err
	}
	// write writes a whole region, or its pieces if that is all that there is.
	write := func(r graph.Region, x []float32) error {
		all, own := append(slices.Clone(x), make([]float32, length-n)...), make([]float32, held)
		if shard.Full {
			piece(shard, all, own, false)
			return mem.Write(r, 0, own)
		}
		return mem.Write(r, 0, all)
	}
	if err := write(graph.Params, draw(0, 1)); err != nil {
		return err
	}
	var wrong error // returned at the end, because the others wait for this process
	for step := range steps {
		g := gradient(step, 0)
		if !shard.Full {
			spoilt := slices.Repeat([]float32{float32(math.NaN())}, length)
			own := make([]float32, moments)
			piece(shard, append(slices.Clone(g), make([]float32, length-n)...), own, false)
			piece(shard, spoilt, own, true)
			if err := mem.Write(graph.Grads, 0, spoilt); err != nil {
				return err
			}
		} else if err := write(graph.Grads, g); err != nil {
			return err
		}
		norm, err := opt.Step(int64(step), total, 1)
		if err != nil {
			return err
		}
		if !(math.Abs(norm-norms[step]) <= 1e-6*norms[step]) {
			wrong = errors.Join(wrong, fmt.Errorf("norm of step %d is %v, want %v", step, norm, norms[step]))
		}
	}
	for r, all := range whole {
		own := make([]float32, moments)
		if r == graph.Params && !shard.Full {
			x := make([]float32, length)
			if err := mem.Read(r, 0, x); err != nil {
				return err
			}
			if m.rank == m.size-1 { // all have all of them
				copy(all, x)
			}
			continue
		}
		if err := mem.Read(r, 0, own); err != nil {
			return err
		}
		piece(shard, all, own, true)
	}
	return wrong
}

func float64s(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}
