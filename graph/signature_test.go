package graph

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseSignature(t *testing.T) {
	for _, c := range []struct {
		text    string
		in, out []string // as operand.String writes them, with marks
	}{
		{"x[N] -> y[N]", []string{"x[N]"}, []string{"y[N]"}},
		{"  x[ B  T D ] ,w[D]->y[B T D],rstd:f32[B T]", []string{"x[B T D]", "w[D]"}, []string{"y[B T D]", "rstd:f32[B T]"}},
		{"acc![N], g[N] ->", []string{"acc![N]", "g[N]"}, nil},
		{"seen:i32![1], k:mm[B T K*D] -> s[]", []string{"seen:i32![1]", "k:mm[B T K*D]"}, []string{"s[]"}},
		{"x[B T H*D] -> y[B T 2*H*D], ids:i32[B]", []string{"x[B T H*D]"}, []string{"y[B T 2*H*D]", "ids:i32[B]"}},
	} {
		sig, err := parseSignature(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if diff := cmp.Diff(c.in, marked(sig.in)); diff != "" {
			t.Errorf("%q: inputs (-want +got):\n%s", c.text, diff)
		}
		if diff := cmp.Diff(c.out, marked(sig.out)); diff != "" {
			t.Errorf("%q: outputs (-want +got):\n%s", c.text, diff)
		}
	}
}

// marked writes operands as a signature does.
func marked(list []operand) []string {
	var out []string
	for _, o := range list {
		mark := map[Kind]string{Free: "", Precise: ":f32", Factor: ":mm"}[o.kind]
		if o.dtype == Int32 {
			mark = ":i32"
		}
		if o.updated {
			mark += "!"
		}
		out = append(out, strings.Replace(o.String(), "[", mark+"[", 1))
	}
	return out
}

func TestParseSignatureErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "no ->"},
		{"x[N]", "no ->"},
		{"x -> y[N]", `"x" is not name[dims]`},
		{"x[N], -> y[N]", `"" is not name[dims]`},
		{"x[B,T] -> y[B]", `"x[B" is not name[dims]`},
		{"x[N] -> y[N] -> z[N]", `is not name[dims]`},
		{"x[N]] -> y[N]", `is not name[dims]`},
		{"[N] -> y[N]", `"[N]" is not name[dims]`},
		{"x y[N] -> z[N]", `"x y[N]" is not name[dims]`},
		{"2x[N] -> z[N]", `"2x[N]" is not name[dims]`},
		{"x!:i32[N] -> z[N]", `is not name[dims]`},
		{"x:f64[N] -> z[N]", `is not name[dims]`},
		{"x[N**2] -> y[N]", `"" is neither a symbol nor a positive number`},
		{"x[-1] -> y[N]", `"-1" is neither a symbol nor a positive number`},
		{"x[0] -> y[N]", `"0" is neither`},
		{"x[9999999999] -> y[N]", `"9999999999" is neither`},
		{"x[N+1] -> y[N]", `"N+1" is neither`},
		{"x[N] -> y![N]", "output y can't be marked !"},
		{"x[N], x[N] -> y[N]", "two tensors are named x"},
		{"x[N] -> x[N]", "two tensors are named x"},
	} {
		_, err := parseSignature(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error is %v, want one with %q", c.text, err, c.want)
		}
	}
}

func FuzzSignature(f *testing.F) {
	for _, s := range []string{
		"x[B T D], w:f32[D] -> y[B T D], rstd:f32[B T]", "acc![N], g[N] ->", "x:mm[B T H*D] -> s[]",
		"seen:i32![1] -> y[2*N]", "x[N] -> y[M]", "->", "x[N*N] -> y[N]",
	} {
		f.Add(s, 6, 1)
	}
	f.Fuzz(func(t *testing.T, text string, n, m int) {
		sig, err := parseSignature(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n") && !strings.Contains(text, "\n") {
				t.Errorf("%q: the error has several lines: %v", text, err)
			}
			return
		}
		// A parsed signature, written out, parses to the same.
		again, err := parseSignature(strings.Join(marked(sig.in), ", ") + " -> " + strings.Join(marked(sig.out), ", "))
		if err != nil {
			t.Fatalf("%q: not read again: %v", text, err)
		}
		if diff := cmp.Diff(marked(sig.in), marked(again.in)) + cmp.Diff(marked(sig.out), marked(again.out)); diff != "" {
			t.Fatalf("%q: read again it differs:\n%s", text, diff)
		}
		// Arbitrary shapes either bind such that the inputs have them, or are rejected.
		var shapes []Shape
		for i, o := range sig.in {
			s := Shape{}
			for j := range o.dims {
				s = append(s, []int{n, m, n * m}[(i+j)%3])
			}
			shapes = append(shapes, s)
		}
		r, err := (&Spec{Name: "fuzz", Signature: text}).Resolve(shapes)
		if err != nil {
			return
		}
		for i, o := range r.In {
			if !o.Shape.Equal(shapes[i]) {
				t.Fatalf("%q: input %s is %v, was given as %v", text, o.Name, o.Shape, shapes[i])
			}
		}
		for _, o := range r.Out {
			if o.Shape.Size() < 1 {
				t.Fatalf("%q: output %s is %v", text, o.Name, o.Shape)
			}
		}
	})
}
