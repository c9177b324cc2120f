// Package verify compares this build's numerics with fixtures: small models whose
// logits, gradients and first optimizer steps were computed in float64 by an
// independent program.
package verify

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/sambatrain/sambatrain/graph"
	"github.com/sambatrain/sambatrain/internal/train"
	"github.com/sambatrain/sambatrain/recipes"
)

// Tolerances are the largest errors that pass. Logits and gradients are compared per tensor, by
// max|a-b|/max|b|, or with Norms by ||a-b||/||b||. Parameters after the steps are always compared
// by norms, because AdamW makes a full step from a gradient however small, and so from its rounding
// errors. Norms of gradients are compared at each step, or with Norms only while the weights are
// the fixture's: weights that a step has moved with rounding errors may have a gradient of a very
// different size where the loss is steep.
type Tolerances struct {
	Norms                                                 bool
	Logits, Loss, Gradients, Steps, GradNorms, Parameters float64
}

// The tolerances of each precision.
var (
	Float32  = Tolerances{Logits: 2e-5, Loss: 2e-5, Gradients: 2e-4, Steps: 1e-4, GradNorms: 1e-3, Parameters: 1e-2}
	TF32     = Tolerances{Norms: true, Logits: 1e-2, Loss: 1e-2, Gradients: 6e-2, Steps: 6e-2, GradNorms: 6e-2, Parameters: 1e-1}
	BFloat16 = Tolerances{Norms: true, Logits: 3e-2, Loss: 3e-2, Gradients: 6e-2, Steps: 6e-2, GradNorms: 6e-2, Parameters: 1e-1}
)

// Report is one fixture's errors.
type Report struct {
	File      string  `json:"file"`
	Logits    float64 `json:"logits"`
	Loss      float64 `json:"loss"`
	Gradients float64 `json:"gradients"`
	// Worst is the parameter whose gradient has the largest error.
	Worst string `json:"worst_gradient,omitempty"`
	// Steps and GradNorms are the largest errors of the losses and of the gradient norms of the
	// AdamW steps, as far as these are compared.
	Steps     float64 `json:"steps"`
	GradNorms float64 `json:"grad_norms"`
	// Parameters is the largest error of a parameter after the steps.
	Parameters float64 `json:"parameters"`
	// Sublayers is the model's number of sublayers. The first Float32Sublayers were in float32: all
	// of them unless run.dtype was bfloat16.
	Sublayers        int  `json:"sublayers"`
	Float32Sublayers int  `json:"float32_sublayers"`
	Pass             bool `json:"pass"`
	// Beyond lists the errors that exceed their limits, and by how much.
	Beyond string `json:"beyond,omitempty"`
	Error  string `json:"error,omitempty"`
}

// Files lists the fixtures at a path: the file itself, or a folder's *.safetensors.
func Files(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	files, err := filepath.Glob(filepath.Join(path, "*.safetensors"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("verify: %s holds no *.safetensors", path)
	}
	return files, err
}

// Run checks one fixture on a device that was opened for run. If it can't be checked, the Report
// doesn't pass and says why.
func Run(dev graph.Device, file string, run recipes.Run) Report {
	r := Report{File: file}
	f, err := open(file)
	if err == nil {
		defer f.file.Close()
		err = r.run(dev, f, run)
	}
	if err == nil {
		err = r.finite()
	}
	if err != nil {
		// The report already names the file.
		return Report{File: file, Error: strings.ReplaceAll(err.Error(), file+": ", "")}
	}
	r.Beyond = r.beyond(tolerances(run.DType))
	r.Pass = r.Beyond == ""
	return r
}

func tolerances(dtype string) Tolerances {
	switch dtype {
	case recipes.BFloat16:
		return BFloat16
	case recipes.TF32:
		return TF32
	}
	return Float32
}

// measure is one of a report's errors, and the largest that passes.
type measure struct {
	name        string
	value, most float64
}

func (r *Report) measures(tol Tolerances) []measure {
	return []measure{{"logits", r.Logits, tol.Logits}, {"loss", r.Loss, tol.Loss}, {"gradients", r.Gradients, tol.Gradients}, {"steps", r.Steps, tol.Steps},
		{"gradient norms", r.GradNorms, tol.GradNorms}, {"parameters", r.Parameters, tol.Parameters}}
}

// beyond lists the errors that exceed their limits, and by how much.
func (r *Report) beyond(tol Tolerances) string {
	var list []string
	for _, m := range r.measures(tol) {
		if !(m.value <= m.most) {
			list = append(list, fmt.Sprintf("%s %.1e, at most %.0e", m.name, m.value, m.most))
		}
	}
	return strings.Join(list, "; ")
}

// finite turns an infinite or NaN error into an error message, since JSON has no numbers for them.
func (r *Report) finite() error {
	for _, m := range r.measures(Tolerances{}) {
		if math.IsNaN(m.value) || math.IsInf(m.value, 0) {
			return fmt.Errorf("the %s of the fixture or of this build are not all finite", m.name)
		}
	}
	return nil
}

func (r *Report) run(dev graph.Device, f *fixture, run recipes.Run) error {
	f.measure, f.rounded = byLargest, tolerances(run.DType).Norms
	if f.rounded {
		f.measure = byNorms
	}
	of := recipes.Recipe{Model: f.model, Run: run}
	precision := of.Precision()
	r.Sublayers, r.Float32Sublayers = f.model.Depth(), f.model.Depth()
	if run.Mixed() {
		r.Float32Sublayers = precision.Float32Sublayers
	}
	if r.Float32Sublayers > r.Sublayers {
		return fmt.Errorf("%d sublayers can't be in float32: the model has %d", r.Float32Sublayers, r.Sublayers)
	}
	e, err := train.NewEngine(dev, &f.model, f.optim, train.EngineConfig{MicroBatch: f.b, SeqLen: f.t, Precision: precision})
	if err != nil {
		return err
	}
	if err := f.load(e); err != nil {
		return err
	}
	for _, check := range []func(*fixture, *train.Engine) error{r.forward, r.backward, r.steps} {
		if err := check(f, e); err != nil {
			return err
		}
	}
	return nil
}

func (r *Report) forward(f *fixture, e *train.Engine) error {
	got, err := e.Logits(f.tokens)
	if err != nil {
		return err
	}
	want, err := f.floats("output.logits", len(got))
	if err != nil {
		return err
	}
	r.Logits = f.measure(got, want)
	return nil
}

func (r *Report) backward(f *fixture, e *train.Engine) error {
	loss, err := e.Forward(f.tokens, f.targets)
	if err != nil {
		return err
	}
	want, err := f.floats("output.loss", 1)
	if err != nil {
		return err
	}
	r.Loss = math.Abs(loss-float64(want[0])) / math.Abs(float64(want[0]))
	r.Gradients, r.Worst, err = f.compare(e, graph.Grads, "grad.", f.measure)
	return err
}

func (r *Report) steps(f *fixture, e *train.Engine) error {
	entry, ok := f.file.Entry("train.losses")
	if !ok || len(entry.Shape) != 1 || entry.Shape[0] == 0 {
		return errors.New("no tensor train.losses [steps]")
	}
	losses, err := f.floats("train.losses", entry.Shape[0])
	if err != nil {
		return err
	}
	norms, err := f.floats("train.grad_norms", len(losses))
	if err != nil {
		return err
	}
	own := true // the weights are still the fixture's
	for i := range losses {
		loss, norm, err := e.Step(int64(i), f.totalSteps, f.tokens, f.targets)
		if err != nil {
			return err
		}
		r.Steps = max(r.Steps, math.Abs(loss-float64(losses[i]))/math.Abs(float64(losses[i])))
		if own || !f.rounded {
			r.GradNorms = max(r.GradNorms, math.Abs(norm-float64(norms[i]))/math.Abs(float64(norms[i])))
		}
		own = own && f.optim.LR(int64(i), f.totalSteps) == 0
	}
	r.Parameters, _, err = f.compare(e, graph.Params, "train.param.", byNorms)
	return err
}

// compare returns the largest error of a region's tensors, and the name of the tensor.
func (f *fixture) compare(e *train.Engine, r graph.Region, prefix string, measure func(a, b []float32) float64) (worst float64, name string, err error) {
	params := e.Params()
	wants, top := make([][]float32, len(params)), 0.0
	for i, p := range params {
		if wants[i], err = f.floats(prefix+p.Name, p.Shape.Size()); err != nil {
			return 0, "", err
		}
		top = max(top, largest(wants[i]))
	}
	for i, p := range params {
		got, want := make([]float32, p.Shape.Size()), wants[i]
		if err := e.Memory().Read(r, p.Offset, got); err != nil {
			return 0, "", err
		}
		d := measure(got, want)
		if largest(want) == 0 {
			// For example with queries that see one key: compare with the largest element of all
			// tensors.
			d = largest(got) / top
		}
		if math.IsNaN(d) {
			return d, p.Name, nil
		}
		if d > worst || name == "" {
			worst, name = d, p.Name
		}
	}
	return worst, name, nil
}

// largest returns max|a|, or NaN if there is one.
func largest(a []float32) float64 {
	top := 0.0
	for _, x := range a {
		top = max(top, math.Abs(float64(x)))
	}
	return top
}

// byLargest returns max|a-b| / max|b|, or NaN if either contains one.
func byLargest(a, b []float32) float64 {
	worst, scale := 0.0, 0.0
	for i := range a {
		d := math.Abs(float64(a[i]) - float64(b[i]))
		if math.IsNaN(d) {
			return d
		}
		worst = math.Max(worst, d)
		scale = math.Max(scale, math.Abs(float64(b[i])))
	}
	if worst == 0 {
		return 0
	}
	return worst / scale
}

// byNorms returns ||a-b|| / ||b||, or NaN if either contains one.
func byNorms(a, b []float32) float64 {
	diff, scale := 0.0, 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		diff += d * d
		scale += float64(b[i]) * float64(b[i])
	}
	if diff == 0 {
		return 0
	}
	return math.Sqrt(diff / scale)
}
