package graph

// CollectiveKind is one of the calls of Comm.
type CollectiveKind uint8

// The calls that a plan makes.
const (
	AllReduce CollectiveKind = iota
	ReduceScatter
	AllGather
)

// CollectiveSpec is an op that is a call to other processes: in place on x, or from x to y. A
// single process makes no call: its y is x. bytes is the size of x and y.
func CollectiveSpec(kind CollectiveKind, name, signature string, bytes func(d Dims) int) *Spec {
	return &Spec{
		Name:       name,
		Signature:  signature,
		Collective: &kind,
		Reference: func(_ Dims, in, out []Array) {
			for _, y := range out {
				copy(y.Data, in[0].Data)
			}
		},
		CPU:  kind.kernel,
		CUDA: &CUDA{Launches: kind.launches},
		Cost: func(d Dims) Cost { return Cost{Bytes: float64(bytes(d))} },
	}
}

// PieceSpec is a CollectiveSpec from a piece [M] to a whole vector [R M], or vice versa, for R
// processes.
func PieceSpec(kind CollectiveKind, name, signature string, processes int) *Spec {
	s := CollectiveSpec(kind, name, signature, func(d Dims) int { return 4 * (d["R"]*d["M"] + d["M"]) })
	s.Dims = Dims{"R": processes}
	return s
}

// CollectiveCases are the shapes under test, for a single process: those of vectors [N] and, if
// piece is not nil, of pieces [M].
func CollectiveCases(vector, piece *Spec) []Case {
	list := []Case{
		{Name: "one element", Spec: vector, Dims: Dims{"N": 1}},
		{Name: "odd", Spec: vector, Dims: Dims{"N": 37}},
		{Name: "16m", Spec: vector, Dims: Dims{"N": 16 << 20}, Bench: true},
	}
	if piece != nil {
		list = append(list, Case{Name: "piece", Spec: piece, Dims: Dims{"M": 37}})
	}
	return list
}

// Do makes the call. If the argument for a piece is as long as the whole vector, it uses this
// process's piece of it.
func (k CollectiveKind) Do(c Comm, from, to Vector) error {
	switch k {
	case ReduceScatter:
		return c.ReduceScatter(from, own(c, to, from.Elements))
	case AllGather:
		return c.AllGather(own(c, from, to.Elements), to)
	}
	return c.AllReduce(from, to)
}

func own(c Comm, x Vector, whole int) Vector {
	if x.Elements < whole {
		return x
	}
	n := whole / c.Size()
	return x.Part(c.Rank()*n, n)
}

// kernel is the CPU kernel.
func (k CollectiveKind) kernel(c *CPUCall) func() {
	x := c.In[0].F32
	y := x
	if len(c.Out) > 0 {
		y = c.Out[0].F32
	}
	return func() {
		if c.Comm == nil {
			copy(y, x)
			return
		}
		if err := k.Do(c.Comm, VectorOf(x), VectorOf(y)); err != nil {
			c.Fail(err)
		}
	}
}

// launches are the launches on a GPU.
func (k CollectiveKind) launches(c *CUDACall) ([]Launch, error) {
	x := c.In[0]
	y := x
	if len(c.Out) > 0 {
		y = c.Out[0]
	}
	return []Launch{{Collective: &Collective{Kind: k, From: x, To: y}}}, nil
}
