package graph

// documentAt is the tokens [from, to) of a row.
type documentAt struct{ row, from, to int }

// bind is the CPU kernel.
func (o *documentOp) bind(c *CPUCall) func() {
	whole := o.alone(c.Dims, c.Dims["T"])
	grads := o.room(o.grads, whole)
	var outs [][]float32
	if o.backward == nil || o.again() {
		outs = o.room(o.out, whole)
	}
	var params []int // gradients that all documents add to
	for i, op := range o.grads {
		if !op.byToken() {
			params = append(params, i)
		}
	}
	return func() {
		for _, i := range params {
			for r := range c.Out[i].Rows {
				clear(c.Out[i].Row(r))
			}
		}
		eachDocument(c.Dims, c.In[len(c.In)-1].I32, func(row, from, to int) {
			o.run(c, documentAt{row, from, to}, outs, grads)
			for _, i := range params {
				for r := range c.Out[i].Rows {
					dst, src := c.Out[i].Row(r), grads[i][r*c.Out[i].Cols:]
					for j := range dst {
						dst[j] += src[j]
					}
				}
			}
		})
	}
}

// room allocates memory for results that have no buffer in the plan.
func (o *documentOp) room(list []operand, d Dims) [][]float32 {
	room := make([][]float32, len(list))
	for i, op := range list {
		room[i] = make([]float32, shapeOf(op, d).Size())
	}
	return room
}

// run computes one document. Results that have no buffer in the plan go to outs and grads.
func (o *documentOp) run(c *CPUCall, at documentAt, outs, grads [][]float32) {
	d := document{c: c, at: at, dims: o.alone(c.Dims, at.to-at.from)}
	var ins []Buffer
	for i, op := range o.in {
		ins = append(ins, d.part(c.In[i], op))
	}
	results := o.results(d, outs)
	if o.backward == nil || o.again() {
		d.call(o.forward, ins, results)
	}
	if o.backward == nil {
		return
	}
	for _, i := range o.saved {
		if at := o.place(i); at >= 0 {
			results[i] = d.part(c.In[at], o.out[i])
		}
		ins = append(ins, results[i])
	}
	ins = append(ins, d.part(c.In[o.gradientAt()], o.out[0]))
	var to []Buffer
	for i, op := range o.grads {
		if op.byToken() {
			to = append(to, d.part(c.Out[i], op))
		} else {
			to = append(to, d.whole(grads[i], op))
		}
	}
	d.call(o.backward, ins, to)
}

// results returns the buffers of the forward op's results; those that are not written are empty.
func (o *documentOp) results(d document, outs [][]float32) []Buffer {
	list := make([]Buffer, len(o.out))
	for i, op := range o.out {
		switch at := o.place(i); {
		case o.backward == nil && at >= 0:
			list[i] = d.part(d.c.Out[at], op)
		case o.backward == nil || o.again():
			list[i] = d.whole(outs[i], op)
		}
	}
	return list
}

// document is one of the documents of a call.
type document struct {
	c    *CPUCall // of all documents
	at   documentAt
	dims Dims // of a call for this document alone
}

// part returns this document's part of a buffer of all documents.
func (d document) part(x Buffer, op operand) Buffer {
	n := d.at.to - d.at.from
	switch {
	case !op.byToken():
		return x
	case len(op.dims) == 2:
		return Buffer{Rows: 1, Cols: n, Stride: n, F32: x.F32[d.at.row*x.Stride+d.at.from:][:n:n]}
	}
	first := d.at.row*d.c.Dims["T"] + d.at.from
	return Buffer{Rows: n, Cols: x.Cols, Stride: x.Stride, F32: x.F32[first*x.Stride:]}
}

// whole returns a buffer for this document in room.
func (d document) whole(room []float32, op operand) Buffer {
	s := shapeOf(op, d.dims)
	return Buffer{Rows: s.Rows(), Cols: s.Cols(), Stride: s.Cols(), F32: room[:s.Size()]}
}

// call computes an op for this document.
func (d document) call(s *Spec, in, out []Buffer) {
	scratch := 0
	if s.Workspace != nil {
		scratch = s.Workspace(d.dims, d.c.Pool.Workers())
	}
	s.CPU(&CPUCall{Dims: d.dims, In: in, Out: out, Pool: d.c.Pool, Workspace: d.c.Workspace[:scratch:scratch], Comm: d.c.Comm, Fail: d.c.Fail})()
}
