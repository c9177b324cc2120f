package graph

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Dims maps the symbols of a signature to their sizes.
type Dims map[string]int

// operand is one tensor of a signature.
type operand struct {
	name    string
	dtype   DType
	updated bool // the op changes it in place
	kind    Kind
	dims    []extent // as written
}

// extent is one dimension of an operand: a product of symbols and numbers.
type extent []string

// signature is the parsed form of Spec.Signature.
type signature struct {
	in, out []operand
}

// operandForm matches name[dims]; factorForm matches one factor of a dimension.
var (
	operandForm = regexp.MustCompile(`^([A-Za-z]\w*)(:i32|:f32|:mm)?(!)?\[([^\[\]]*)\]$`)
	factorForm  = regexp.MustCompile(`^([A-Za-z]\w*|[1-9][0-9]{0,8})$`)
)

// parseSignature parses `x[B T D], w:f32[D] -> y[B T D], rstd:f32[B T]`. A name may have the suffix
// `:i32` (int32 elements), `:f32` or `:mm` (see Kind), and an input a trailing `!` (updated in
// place), as in `seen:i32![1]`. A dimension is a symbol, a number, or a product such as H*D.
func parseSignature(s string) (signature, error) {
	left, right, ok := strings.Cut(s, "->")
	if !ok {
		return signature{}, fmt.Errorf("signature %q: no ->", s)
	}
	var sig signature
	var err error
	if sig.in, err = parseOperands(left); err != nil {
		return signature{}, fmt.Errorf("signature %q: %w", s, err)
	}
	if sig.out, err = parseOperands(right); err != nil {
		return signature{}, fmt.Errorf("signature %q: %w", s, err)
	}
	seen := map[string]bool{}
	for _, o := range slices.Concat(sig.in, sig.out) {
		if seen[o.name] {
			return signature{}, fmt.Errorf("signature %q: two tensors are named %s", s, o.name)
		}
		seen[o.name] = true
	}
	for _, o := range sig.out {
		if o.updated {
			return signature{}, fmt.Errorf("signature %q: output %s can't be marked !", s, o.name)
		}
	}
	return sig, nil
}

func parseOperands(s string) ([]operand, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, nil
	}
	var list []operand
	for _, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		m := operandForm.FindStringSubmatch(part)
		if m == nil {
			return nil, fmt.Errorf("%q is not name[dims]", part)
		}
		o := operand{name: m[1], updated: m[3] != ""}
		switch m[2] {
		case ":i32":
			o.dtype = Int32
		case ":f32":
			o.kind = Precise
		case ":mm":
			o.kind = Factor
		}
		for _, f := range strings.Fields(m[4]) {
			e := extent(strings.Split(f, "*"))
			if i := slices.IndexFunc(e, func(f string) bool { return !factorForm.MatchString(f) }); i >= 0 {
				return nil, fmt.Errorf("%q: %q is neither a symbol nor a positive number", part, e[i])
			}
			o.dims = append(o.dims, e)
		}
		list = append(list, o)
	}
	return list, nil
}

// bind determines the size of every symbol from the inputs' shapes. fixed holds the symbols that
// the op's attributes set.
func (s signature) bind(fixed Dims, in []Shape) (Dims, error) {
	if len(in) != len(s.in) {
		return nil, fmt.Errorf("wants %d inputs, got %d", len(s.in), len(in))
	}
	d := Dims{}
	maps.Copy(d, fixed)
	// Plain symbols first, so that a product such as H*D may come before the operand that
	// determines D.
	for _, products := range []bool{false, true} {
		for i, o := range s.in {
			if len(in[i]) != len(o.dims) {
				return nil, fmt.Errorf("%s wants %d dimensions, got %v", o, len(o.dims), in[i])
			}
			for j, e := range o.dims {
				if (len(e) > 1) != products {
					continue
				}
				if err := e.solve(d, in[i][j]); err != nil {
					return nil, fmt.Errorf("%s, got %v: %w", o, in[i], err)
				}
			}
		}
	}
	return d, nil
}

// solve determines the size of the extent's one unknown symbol, so that the extent equals n.
func (e extent) solve(d Dims, n int) error {
	known, unknown := 1, ""
	for _, f := range e {
		if v, err := strconv.Atoi(f); err == nil {
			known *= v
		} else if v, ok := d[f]; ok {
			known *= v
		} else if unknown != "" {
			return fmt.Errorf("%s and %s are both unknown", unknown, f)
		} else {
			unknown = f
		}
	}
	if n <= 0 {
		return fmt.Errorf("size %d is not positive", n)
	}
	if unknown == "" {
		if known != n {
			return fmt.Errorf("%s is %d, not %d", strings.Join(e, "*"), known, n)
		}
		return nil
	}
	if known == 0 || n%known != 0 {
		return fmt.Errorf("%d does not divide into %s with %d known", n, strings.Join(e, "*"), known)
	}
	d[unknown] = n / known
	return nil
}

// shape is the operand's shape; every symbol must have a size.
func (o operand) shape(d Dims) (Shape, error) {
	s := make(Shape, len(o.dims))
	for i, e := range o.dims {
		n := 1
		for _, f := range e {
			v, err := strconv.Atoi(f)
			if err != nil {
				var ok bool
				if v, ok = d[f]; !ok {
					return nil, fmt.Errorf("%s: no size for %s (known: %v)", o, f, slices.Sorted(maps.Keys(d)))
				}
			}
			if v <= 0 || v > maxSize/n {
				return nil, fmt.Errorf("%s: %d is no size for %s", o, v, f)
			}
			n *= v
		}
		s[i] = n
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", o, err)
	}
	return s, nil
}

// strided reports whether the operand's rows may be non-contiguous: it is an activation, or a
// weight of a matrix product.
func (o operand) strided() bool { return o.activation() || o.kind == Factor && len(o.dims) == 2 }

// activation reports whether the operand is float32 with dimensions [B T ...] of rank 3.
func (o operand) activation() bool {
	return o.dtype == Float32 && len(o.dims) == 3 && o.dims[0].is("B") && o.dims[1].is("T")
}

func (e extent) is(symbol string) bool { return len(e) == 1 && e[0] == symbol }

func (o operand) String() string {
	parts := make([]string, len(o.dims))
	for i, e := range o.dims {
		parts[i] = strings.Join(e, "*")
	}
	return o.name + "[" + strings.Join(parts, " ") + "]"
}
