package forecast

import (
	"embed"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/recipes"
)

//go:embed h100.yaml interconnects.yaml
var files embed.FS

// Calibration is the measured performance of a GPU, op by op.
type Calibration struct {
	GPU  string `yaml:"gpu"`
	Name string `yaml:"name"`
	// Source and Date say where the rates were measured.
	Source string `yaml:"source"`
	Date   string `yaml:"date"`
	// PeakTFLOPs is the peak in the data sheet, for the utilization.
	PeakTFLOPs float64 `yaml:"peak_tflops"`
	// Memory is the memory that a run may use.
	Memory recipes.Bytes `yaml:"memory"`
	// Price is in US dollars per hour.
	Price float64 `yaml:"price"`
	// Products and Moves are the rates of ops that are not listed: of those with much arithmetic
	// per byte, and of the others.
	Products Rate `yaml:"products"`
	Moves    Rate `yaml:"moves"`
	// Unaligned is the fraction of their rate that products reach if their bfloat16 rows are not
	// aligned to 16 bytes.
	Unaligned float64 `yaml:"unaligned"`
	// Float32 is the rate of products in the sublayers that run.float32_sublayers leaves in
	// float32. Other ops there move the bytes that they count at a rate of at most Moves.
	Float32 Rate `yaml:"float32"`
	// CallMicros is the overhead of each call, in microseconds.
	CallMicros float64 `yaml:"call_us"`
	// Several is the fraction by which steps on several GPUs take longer than their kernels and
	// collectives, because they wait for the slowest GPU.
	Several float64         `yaml:"several"`
	Ops     map[string]Rate `yaml:"ops"`
	// Variants are ops with a different rate at some size, such as `attention D=64`, or in float32
	// sublayers, such as `attention float32`.
	Variants map[string]Rate `yaml:"variants"`
}

// Rate is the speed of an op, by arithmetic or by memory, for the work that its graph.Cost counts.
type Rate struct {
	TFLOPs float64 `yaml:"tflops"`
	GBs    float64 `yaml:"gbs"`
}

// seconds returns the time for some work.
func (r Rate) seconds(c graph.Cost) float64 {
	if r.TFLOPs > 0 {
		return c.FLOPs / (1e12 * r.TFLOPs)
	}
	return c.Bytes / (1e9 * r.GBs)
}

func (r Rate) check() error {
	if (r.TFLOPs > 0) == (r.GBs > 0) || r.TFLOPs < 0 || r.GBs < 0 {
		return fmt.Errorf("give one of tflops and gbs, above 0")
	}
	return nil
}

// GPUs returns the names of the GPUs with built-in calibrations.
func GPUs() []string { return []string{"h100"} }

// LoadCalibration finds a GPU by its name, or reads a file of the same format.
func LoadCalibration(name string) (*Calibration, error) {
	var c Calibration
	if err := load(name, GPUs(), "--gpu", &c); err != nil {
		return nil, err
	}
	return &c, c.check(name)
}

func (c *Calibration) check(name string) error {
	for _, v := range []struct {
		key   string
		value float64
	}{{"peak_tflops", c.PeakTFLOPs}, {"memory", float64(c.Memory)}, {"price", c.Price}, {"unaligned", c.Unaligned}} {
		if v.value <= 0 {
			return fmt.Errorf("%s: %s: must be above 0, is %v", name, v.key, v.value)
		}
	}
	rates := map[string]Rate{"products": c.Products, "moves": c.Moves, "float32": c.Float32}
	for op, r := range c.Ops {
		rates["ops."+op] = r
	}
	for op, r := range c.Variants {
		rates["variants."+op] = r
	}
	for _, key := range slices.Sorted(maps.Keys(rates)) {
		if err := rates[key].check(); err != nil {
			return fmt.Errorf("%s: %s: %w", name, key, err)
		}
	}
	return nil
}

// load reads one of this package's files, or the user's.
func load(name string, own []string, flag string, into any) error {
	var text []byte
	var err error
	if slices.Contains(own, name) {
		text, err = files.ReadFile(name + ".yaml")
	} else if text, err = os.ReadFile(name); os.IsNotExist(err) {
		return fmt.Errorf("%s: %q is neither %s nor a file", flag, name, strings.Join(own, ", "))
	}
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalWithOptions(text, into, yaml.Strict()); err != nil {
		return fmt.Errorf("%s: %s", name, yaml.FormatError(err, false, false))
	}
	return nil
}

// arithmetic is the number of operations per byte from which an op that is not listed counts as a
// product.
const arithmetic = 50

// op returns the duration of a call; known reports whether its rate was measured.
func (c *Calibration) op(s *graph.Step) (seconds float64, known bool) {
	if s.Spec.Cost == nil {
		return 0, true
	}
	cost := s.Spec.Cost(s.Dims)
	rate, known := c.Ops[s.Spec.Name]
	if v, ok := c.Variants[fmt.Sprintf("%s D=%d", s.Spec.Name, s.Dims["D"])]; ok {
		rate, known = v, true
	}
	switch {
	case known:
	case cost.FLOPs > arithmetic*cost.Bytes:
		rate = c.Products
	default:
		rate = c.Moves
	}
	seconds = rate.seconds(cost)
	if s.Precise {
		seconds, known = c.float32(s, cost, seconds)
		return seconds + 1e-6*c.CallMicros, known
	}
	if rate.TFLOPs > 0 && unaligned(s) {
		seconds /= c.Unaligned
	}
	return seconds + 1e-6*c.CallMicros, known
}

// float32 returns the duration, in float32, of a call that otherwise takes `otherwise`.
func (c *Calibration) float32(s *graph.Step, cost graph.Cost, otherwise float64) (seconds float64, known bool) {
	if v, ok := c.Variants[s.Spec.Name+" float32"]; ok {
		return v.seconds(cost), true
	}
	if cost.FLOPs > arithmetic*cost.Bytes {
		return c.Float32.seconds(cost), false
	}
	return max(otherwise, c.Moves.seconds(cost)), false
}

// unaligned reports whether the distance between bfloat16 rows is not a multiple of 16 bytes.
// Unaligned columns of wider rows don't count: they are multiplied in aligned parts.
func unaligned(s *graph.Step) bool {
	odd := func(t graph.Slot) bool {
		return t.DType == graph.BFloat16 && t.Rows > 1 && t.Stride%8 != 0
	}
	return slices.ContainsFunc(s.In, odd) || slices.ContainsFunc(s.Out, odd)
}
