// Package plot draws curves, such as a run's losses, to PNG and SVG files.
package plot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/sambatrain/sambatrain/internal/wholefile"
)

// The picture is 8 x 4.5 inches: 1600 x 900 pixels as PNG, 576 x 324 points as SVG.
const (
	width, height = 8 * vg.Inch, 4.5 * vg.Inch
	dpi           = 200
)

// Extensions are the file name extensions that Curves supports.
var Extensions = []string{".png", ".svg"}

// Options says what is drawn around the series.
type Options struct {
	Title          string // "" for none
	XLabel, YLabel string
	References     []Reference
	// XMarks are the marks of the x axis; by default they are round numbers.
	XMarks []Mark
	// FromZero starts the y axis at 0, for speeds that are compared as multiples.
	FromZero bool
	// Percent makes the y axis span 0 to 100, for shares.
	Percent bool
	// CutTop ends the y axis a little above the range where the curves spend most of their time, so
	// that the losses of the first steps don't flatten the rest. A note below the picture says what
	// is cut off.
	CutTop bool
}

// Mark is a mark of an axis, for series whose X is not what the labels show (a logarithm).
type Mark struct {
	X     float64
	Label string
}

// Reference is a horizontal line to compare with, such as the loss of a byte-unigram model.
type Reference struct {
	Label string
	Y     float64
}

// Style is how a series is drawn.
type Style uint8

// The styles of a series.
const (
	Line   Style = iota // a line; when smoothed, over a pale line of the raw values
	Points              // points with a thin line between them
)

// Series is one curve. A point whose Y is NaN, infinite or beyond 1e100 leaves a gap, which a note
// below the picture mentions.
type Series struct {
	Name  string // in the legend
	Style Style
	X, Y  []float64 // of equal length; X is a count (steps, tokens), finite and never decreasing
	// Smooth is the weight of the past in an exponential moving average, from 0 (no smoothing) to
	// below 1, for the style Line. SmoothFor chooses one.
	Smooth float64
}

// Curves draws the series to path, as PNG or SVG by its extension. The same input gives the same bytes.
func Curves(path string, options Options, series []Series) error {
	return drawTo(path, func() error { return check(options, series) }, func(c draw.Canvas) { drawFigure(c, options, series) })
}

// drawTo writes a picture to a file in the format of its extension, unless check finds an error.
func drawTo(path string, check func() error, paint func(c draw.Canvas)) error {
	var out interface {
		vg.CanvasSizer
		io.WriterTo
	}
	switch ext := filepath.Ext(path); strings.ToLower(ext) {
	case ".png":
		out = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dpi))}
	case ".svg":
		out = vgsvg.New(width, height)
	default:
		return fmt.Errorf("%s: can't draw a %q file; give it the extension %s", path, ext, strings.Join(Extensions, " or "))
	}
	if err := check(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	paint(draw.New(out))
	var buf bytes.Buffer
	if _, err := out.WriteTo(&buf); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return wholefile.Write(path, withFontFallback(buf.Bytes()))
}

// withFontFallback adds fonts with the same widths, for machines without the font that was used for
// the layout. In a PNG there is nothing to replace.
func withFontFallback(picture []byte) []byte {
	return bytes.ReplaceAll(picture,
		[]byte("font-family:Liberation Sans;"),
		[]byte("font-family:'Liberation Sans',Arial,Helvetica,sans-serif;"))
}

func check(options Options, series []Series) error {
	if len(series) == 0 {
		return errors.New("no series to draw")
	}
	for _, r := range options.References {
		if !finite(r.Y) {
			return fmt.Errorf("reference %q is at %g", r.Label, r.Y)
		}
	}
	for _, s := range series {
		if err := s.check(); err != nil {
			return fmt.Errorf("series %q: %w", s.Name, err)
		}
	}
	return nil
}

func (s Series) check() error {
	if s.Style != Line && s.Style != Points {
		return fmt.Errorf("unknown style %d", s.Style)
	}
	if !(s.Smooth >= 0 && s.Smooth < 1) {
		return fmt.Errorf("smoothing is %g, want 0 or more and below 1", s.Smooth)
	}
	if len(s.X) != len(s.Y) {
		return fmt.Errorf("%d values of x and %d of y", len(s.X), len(s.Y))
	}
	if !slices.ContainsFunc(s.Y, finite) {
		return errors.New("no finite value to draw")
	}
	for i, x := range s.X {
		if !finite(x) {
			return fmt.Errorf("x of point %d is %g", i, x)
		}
		if i > 0 && x < s.X[i-1] {
			return fmt.Errorf("x falls from %g to %g at point %d", s.X[i-1], x, i)
		}
	}
	return nil
}
