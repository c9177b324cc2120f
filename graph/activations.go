package graph

// joinActivations fuses products into the elementwise ops that read them: on tensor cores the work
// on a product's accumulators costs little, while a separate pass costs as much as its memory
// traffic. It is done in mixed precision, on a final list of steps.
func (c *compiler) joinActivations(steps []pending) ([]pending, error) {
	if c.b.round == nil || c.b.carry != nil {
		return steps, nil
	}
	var list []pending
	for _, s := range steps {
		var err error
		if s.Spec.Made != nil {
			list, s, err = c.takeInFactors(list, s, steps)
		}
		if err == nil && s.Spec.Pulled != nil {
			list, s, err = c.takeInPulled(list, s, steps)
		}
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// takeInFactors joins a step with the two preceding ones if these are the products that it reads.
// It keeps their results if something else reads them.
func (c *compiler) takeInFactors(list []pending, s pending, all []pending) ([]pending, pending, error) {
	n := len(list) - 2
	if n < 0 {
		return list, s, nil
	}
	first, second := list[n], list[n+1]
	for i, p := range []pending{first, second} {
		if !p.Spec.Stacks || !bfloat16(p) || !same(p.in[0], first.in[0]) || !same(p.out[0], s.in[i]) {
			return list, s, nil
		}
	}
	in := []*value{first.in[0], first.in[1], second.in[1]}
	keep := c.usesIn(all, first.out[0].st) > 1 || c.usesIn(all, second.out[0].st) > 1
	res, err := s.Spec.Made(keep).resolveOf(in)
	if err != nil || res == nil {
		return list, s, err
	}
	s.replace(res)
	s.in = in
	if keep {
		s.out = []*value{s.out[0], first.out[0], second.out[0]}
	}
	return list[:n], s, nil
}

// takeInPulled joins a step with the product that is its last input, if nothing else reads that.
func (c *compiler) takeInPulled(list []pending, s pending, all []pending) ([]pending, pending, error) {
	dy := s.in[len(s.in)-1]
	if !dy.whole() || dy.st.region != Arena || c.usesIn(all, dy.st) != 1 {
		return list, s, nil
	}
	for j := len(list) - 1; j >= 0; j-- {
		p := list[j]
		if len(p.out) == 0 || p.out[0].st != dy.st {
			continue
		}
		if !p.Spec.Pulls || !bfloat16(p) {
			break
		}
		in := append([]*value{p.in[0], p.in[1]}, s.in[:len(s.in)-1]...)
		res, err := s.Spec.Pulled().resolveOf(in)
		if err != nil || res == nil {
			return list, s, err
		}
		s.replace(res)
		s.in = in
		return append(list[:j:j], list[j+1:]...), s, nil
	}
	return list, s, nil
}

// bfloat16 reports whether everything that a step reads and writes is bfloat16.
func bfloat16(s pending) bool {
	for _, list := range [][]*value{s.in, s.out} {
		for _, v := range list {
			if v.st.dtype != BFloat16 {
				return false
			}
		}
	}
	return true
}

func same(a, b *value) bool { return a.st == b.st && a.col == b.col && a.shape.Equal(b.shape) }
