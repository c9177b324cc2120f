package graph_test

import (
	"testing"

	"github.com/sambatrain/sambatrain/graph"
)

// TestColumns: the gradients of x's columns are stored in x's gradient, whatever else contributes
// to x.
func TestColumns(t *testing.T) {
	const width = 5
	for _, c := range []struct {
		name string
		// loss uses x [1 2 5] and returns the loss; want is its gradient for each element.
		loss  func(b *graph.Builder, x graph.Tensor) graph.Tensor
		want  func(row, col int) float64
		steps []string // of the backward pass
	}{
		{
			name: "three parts",
			loss: func(b *graph.Builder, x graph.Tensor) graph.Tensor {
				return b.Apply(total(3), b.Columns(x, 3, 5), b.Columns(x, 0, 1), b.Columns(x, 1, 3))
			},
			want: func(row, col int) float64 {
				switch {
				case col < 1:
					return weight(1, row)
				case col < 3:
					return weight(2, row*2+col-1)
				}
				return weight(0, row*2+col-3)
			},
			steps: []string{"weights", "weights", "weights", "scale"},
		},
		{
			name:  "all columns at once",
			loss:  func(b *graph.Builder, x graph.Tensor) graph.Tensor { return b.Apply(total(1), b.Columns(x, 0, 5)) },
			want:  func(row, col int) float64 { return weight(0, row*width+col) },
			steps: []string{"weights", "scale"},
		},
		{
			name: "x is used beside its columns, first",
			loss: func(b *graph.Builder, x graph.Tensor) graph.Tensor {
				return b.Apply(total(3), x, b.Columns(x, 0, 2), b.Columns(x, 2, 5))
			},
			want: func(row, col int) float64 {
				if col < 2 {
					return weight(0, row*width+col) + weight(1, row*2+col)
				}
				return weight(0, row*width+col) + weight(2, row*3+col-2)
			},
			steps: []string{"weights", "weights", "weights", "add", "scale"},
		},
		{
			name: "x is used between its columns, twice",
			loss: func(b *graph.Builder, x graph.Tensor) graph.Tensor {
				return b.Apply(total(4), b.Columns(x, 0, 2), x, b.Columns(x, 2, 5), x)
			},
			want: func(row, col int) float64 {
				g := weight(1, row*width+col) + weight(3, row*width+col)
				if col < 2 {
					return g + weight(0, row*2+col)
				}
				return g + weight(2, row*3+col-2)
			},
			steps: []string{"weights", "weights", "weights", "weights", "add", "add", "scale"},
		},
		{
			name: "columns of columns",
			loss: func(b *graph.Builder, x graph.Tensor) graph.Tensor {
				right := b.Columns(x, 1, 5)
				return b.Apply(total(3), b.Columns(x, 0, 1), b.Columns(right, 0, 3), b.Columns(right, 3, 4))
			},
			want: func(row, col int) float64 {
				switch {
				case col < 1:
					return weight(0, row)
				case col < 4:
					return weight(1, row*3+col-1)
				}
				return weight(2, row)
			},
			steps: []string{"weights", "weights", "weights", "scale"},
		},
		{
			name: "columns of a sum that is used elsewhere",
			loss: func(b *graph.Builder, x graph.Tensor) graph.Tensor {
				r := b.Input("r", graph.Float32, 1, 2, width)
				y := b.Add(x, r)
				return b.Apply(total(3), b.Columns(y, 0, 2), b.Columns(y, 2, 5), b.Apply(scale(2), x))
			},
			want: func(row, col int) float64 {
				g := 2 * weight(2, row*width+col)
				if col < 2 {
					return g + weight(0, row*2+col)
				}
				return g + weight(1, row*3+col-2)
			},
			steps: []string{"weights", "weights", "weights", "scale", "add", "scale"},
		},
		{
			name: "one gradient for two tensors, of which one is all columns of another",
			loss: func(b *graph.Builder, x graph.Tensor) graph.Tensor {
				y := b.Apply(mirror(), x)
				return b.Apply(total(2), b.Add(b.Columns(b.Apply(scale(2), x), 0, 5), y), y)
			},
			want: func(row, col int) float64 {
				// mirrored: column col of x is column 4-col of y
				return 2*weight(0, row*width+col) + weight(0, row*width+4-col) + weight(1, row*width+4-col)
			},
			steps: []string{"weights", "weights", "add", "mirror", "scale", "add", "scale"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			p := b.Param("p", nil, 1, 2, width)
			loss := c.loss(b, b.Apply(scale(2), p))
			if err := b.Gradients(loss); err != nil {
				t.Fatal(err)
			}
			plan := compile(t, b)
			var backward []string
			for _, s := range plan.Steps {
				if s.Backward {
					backward = append(backward, s.Spec.Name)
				}
			}
			if len(backward) != len(c.steps) {
				t.Errorf("backward pass is %v, want %v in some order", backward, c.steps)
			}
			m := load(t, plan)
			m.param("p", make([]float64, 2*width))
			if _, ok := plan.Inputs["r"]; ok {
				m.input("r", make([]float64, 2*width))
			}
			m.run()
			var want []float64
			for row := range 2 {
				for col := range width {
					want = append(want, 2*c.want(row, col))
				}
			}
			m.gradient("p", want)
		})
	}
}

// TestColumnsCostNothing: their gradients are written directly where they belong.
func TestColumnsCostNothing(t *testing.T) {
	b := newBuilder()
	x := b.Apply(scale(2), b.Param("p", nil, 1, 2, 5))
	loss := b.Apply(total(2), b.Columns(x, 0, 2), b.Columns(x, 2, 5))
	if err := b.Gradients(loss); err != nil {
		t.Fatal(err)
	}
	p := compile(t, b)
	var into []graph.Slot
	for _, s := range p.Steps {
		if s.Spec.Name == "weights" {
			into = append(into, s.Out[0])
		}
	}
	if len(into) != 2 || into[0].Offset != into[1].Offset || into[0].Stride != 5 || into[1].Stride != 5 || into[0].Col == into[1].Col {
		t.Errorf("the parts' gradients lie at %+v", into)
	}
}

func TestColumnsErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		loss func(b *graph.Builder, x graph.Tensor) graph.Tensor
		want string
	}{
		{"gap", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			return b.Apply(total(2), b.Columns(x, 0, 2), b.Columns(x, 3, 5))
		}, "column 2 of [1 2 5] is not used"},
		{"end missing", func(b *graph.Builder, x graph.Tensor) graph.Tensor { return b.Apply(total(1), b.Columns(x, 0, 4)) },
			"column 4 of [1 2 5] is not used"},
		{"overlap", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			return b.Apply(total(2), b.Columns(x, 0, 3), b.Columns(x, 2, 5))
		}, "column 2 of [1 2 5] is used twice"},
		{"gap beside another use", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			return b.Apply(total(2), b.Columns(x, 0, 4), x)
		}, "column 4 of [1 2 5] is not used"},
		{"shared by two parts", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			return b.Apply(total(2), b.Add(b.Columns(x, 0, 2), b.Columns(x, 2, 4)), b.Columns(x, 4, 5))
		}, "is shared with another tensor's"},
		{"shared with a parameter", func(b *graph.Builder, x graph.Tensor) graph.Tensor {
			return b.Apply(total(2), b.Add(b.Columns(x, 0, 2), b.Param("q", nil, 1, 2, 2)), b.Columns(x, 2, 5))
		}, "the gradient of q is shared with another tensor's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBuilder()
			loss := c.loss(b, b.Apply(scale(2), b.Param("p", nil, 1, 2, 5)))
			if err := b.Gradients(loss); err != nil {
				t.Fatal(err)
			}
			_, err := b.Compile()
			wantError(t, err, c.want)
		})
	}
}

// TestColumnsNeedStridedOperands: a kernel that needs dense rows gets no columns of a wider tensor,
// neither to read nor to write.
func TestColumnsNeedStridedOperands(t *testing.T) {
	dense := &graph.Spec{Name: "dense", Signature: "x[R N] -> y[R N]"}
	t.Run("input", func(t *testing.T) {
		b := newBuilder()
		b.Scope("layer", func() { b.Result("y", b.Apply(dense, b.Columns(b.Input("x", graph.Float32, 4, 6), 1, 3))) })
		_, err := b.Compile()
		wantError(t, err, "layer: dense: x[4 2] can't be columns of a wider tensor")
	})
	t.Run("one row is dense", func(t *testing.T) {
		b := newBuilder()
		b.Result("y", b.Apply(dense, b.Columns(b.Input("x", graph.Float32, 1, 6), 1, 3)))
		compile(t, b)
	})
	t.Run("parts of a matrix", func(t *testing.T) {
		// A weight's columns: their gradients would be strided columns of its gradient.
		b := newBuilder()
		w := b.Param("w", nil, 4, 6)
		sum := &graph.Spec{Name: "sum", Signature: "x[R N] -> s[]"}
		sum.Gradient = func(g *graph.Gradient) []graph.Tensor {
			return []graph.Tensor{g.Builder().Apply(&graph.Spec{Name: "sum_dx", Signature: "x:f32[R N] -> dx[R N]"}, g.In[0])}
		}
		loss := b.Add(b.Apply(sum, b.Columns(w, 0, 2)), b.Apply(sum, b.Columns(w, 2, 6)))
		if err := b.Gradients(loss); err != nil {
			t.Fatal(err)
		}
		_, err := b.Compile()
		wantError(t, err, "sum_dx: x[4 4] can't be columns of a wider tensor")
	})
}
