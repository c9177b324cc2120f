package recipes

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/sambatrain/sambatrain/layers"
)

// Sublayers is a number of sublayers, or `auto`, which is AutoSublayers.
type Sublayers int

// AutoSublayers leaves the number to layers.Model.Float32Sublayers.
const AutoSublayers Sublayers = -1

// UnmarshalYAML reads auto or a number.
func (n *Sublayers) UnmarshalYAML(text []byte) error {
	s := strings.Trim(strings.TrimSpace(string(text)), `"'`)
	if s == Auto {
		*n = AutoSublayers
		return nil
	}
	x, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return fmt.Errorf("must be auto or a number of sublayers, is %s", s)
	}
	*n = Sublayers(x)
	return nil
}

// UnmarshalJSON reads the same as UnmarshalYAML.
func (n *Sublayers) UnmarshalJSON(text []byte) error { return n.UnmarshalYAML(text) }

// Set is UnmarshalYAML for a flag.
func (n *Sublayers) Set(text string) error { return n.UnmarshalYAML([]byte(text)) }

// Type is its name in a flag's help.
func (Sublayers) Type() string { return "auto|N" }

// String returns what UnmarshalYAML reads.
func (n Sublayers) String() string {
	if n == AutoSublayers {
		return Auto
	}
	return strconv.Itoa(int(n))
}

// MarshalYAML writes what UnmarshalYAML reads.
func (n Sublayers) MarshalYAML() (any, error) {
	if n == AutoSublayers {
		return Auto, nil
	}
	return int(n), nil
}

// MarshalJSON writes the same as MarshalYAML.
func (n Sublayers) MarshalJSON() ([]byte, error) {
	v, _ := n.MarshalYAML()
	return json.Marshal(v)
}

// PrecisionText describes run.dtype, and which sublayers are exempt from it and why.
func (r *Recipe) PrecisionText() string {
	if !r.Run.Mixed() {
		return r.Run.DType
	}
	n, auto := r.Precision().Float32Sublayers, r.Model.Float32Sublayers()
	switch {
	case n != auto:
		return fmt.Sprintf("%s, float32 in the first %d of %d sublayers (run.float32_sublayers; auto is %d)", BFloat16, n, r.Model.Depth(), auto)
	case n > 0:
		return fmt.Sprintf("%s, float32 in the first %d of %d sublayers (run.float32_sublayers: auto, as the model is small)", BFloat16, n, r.Model.Depth())
	}
	return BFloat16
}

// Precision returns the precision of the recipe's programs. Mixed is false for a CPU, whose
// products round their operands themselves; auto counts as a GPU.
func (r *Recipe) Precision() layers.Precision {
	p := layers.Precision{Mixed: r.Run.Mixed() && r.Run.Device != CPU}
	switch n := r.Run.Float32Sublayers; {
	case !r.Run.Mixed():
	case n == AutoSublayers:
		p.Float32Sublayers = r.Model.Float32Sublayers()
	default:
		p.Float32Sublayers = int(n)
	}
	return p
}
