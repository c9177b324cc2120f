package plot

import (
	"bytes"
	"errors"
	"image/png"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lossCurve resembles a run's losses: a power law starting at 10 bits per byte, with noise.
func lossCurve(steps, every int, noise float64) (x, y []float64) {
	rng := rand.New(rand.NewPCG(1, uint64(every)))
	for s := every; s <= steps; s += every {
		x = append(x, float64(s))
		y = append(y, 1.6+5.6*math.Exp(-float64(s)/15)+6*math.Pow(float64(s)+5, -0.35)+noise*rng.NormFloat64())
	}
	return x, y
}

func lossSeries(steps int) []Series {
	trainX, trainY := lossCurve(steps, 1, 0.09)
	valX, valY := lossCurve(steps, steps/12, 0)
	return []Series{
		{Name: "training, smoothed", X: trainX, Y: trainY, Smooth: SmoothFor(steps)},
		{Name: "validation", Style: Points, X: valX, Y: valY},
	}
}

var lossOptions = Options{
	Title: "quickstart", XLabel: "step", YLabel: "loss, bits per byte",
	References: []Reference{{"byte unigram 4.87", 4.87}}, CutTop: true,
}

// drawn draws to a file of that name and returns its bytes.
func drawn(t *testing.T, name string, options Options, series []Series) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := Curves(path, options, series); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCurvesPNG(t *testing.T) {
	b := drawn(t, "loss.PNG", lossOptions, lossSeries(600))
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if size := img.Bounds().Size(); size.X != 1600 || size.Y != 900 {
		t.Errorf("%d x %d pixels, want 1600 x 900", size.X, size.Y)
	}
	counts := map[[3]uint32]int{}
	for y := range 900 {
		for x := range 1600 {
			r, g, b, _ := img.At(x, y).RGBA()
			counts[[3]uint32{r >> 8, g >> 8, b >> 8}]++
		}
	}
	blue := palette[0]
	for name, c := range map[string][3]uint32{
		"training":     {uint32(blue.R), uint32(blue.G), uint32(blue.B)},
		"its noise":    {uint32(pale(blue).R), uint32(pale(blue).G), uint32(pale(blue).B)},
		"validation":   {uint32(palette[1].R), uint32(palette[1].G), uint32(palette[1].B)},
		"the grid":     {uint32(gridInk.Y), uint32(gridInk.Y), uint32(gridInk.Y)},
		"a white page": {255, 255, 255},
	} {
		if counts[c] < 500 {
			t.Errorf("%s: %d pixels of %v", name, counts[c], c)
		}
	}
}

func TestCurvesSVG(t *testing.T) {
	svg := string(drawn(t, "loss.svg", lossOptions, lossSeries(600)))
	for _, text := range []string{
		"quickstart", "step", "loss, bits per byte", "training, smoothed", "validation", "byte unigram 4.87",
		"0", "100", "600", "2", "3", "4", "5", "y axis cut, highest value 10.13",
	} {
		if n := strings.Count(svg, ">"+text+"</text>"); n != 1 {
			t.Errorf("%q is written %d times", text, n)
		}
	}
	if !strings.Contains(svg, "font-family:'Liberation Sans',Arial,Helvetica,sans-serif;") || strings.Contains(svg, "Serif;") {
		t.Error("the font has no fallback, or is another one")
	}
}

func TestCurvesAreDeterministic(t *testing.T) {
	for _, name := range []string{"a.svg", "a.png"} {
		if !bytes.Equal(drawn(t, name, lossOptions, lossSeries(300)), drawn(t, name, lossOptions, lossSeries(300))) {
			t.Errorf("%s: two drawings differ", name)
		}
	}
}

// The size of an SVG depends on the picture, not on the length of the run.
func TestCurvesOfManySteps(t *testing.T) {
	if svg := drawn(t, "long.svg", lossOptions, lossSeries(200000)); len(svg) > 200e3 {
		t.Errorf("the SVG of 200,000 steps has %d bytes", len(svg))
	}
}

func TestCurvesTellOfGaps(t *testing.T) {
	series := lossSeries(120)
	series[0].Y[50], series[0].Y[60], series[1].Y[3] = nan, math.Inf(1), math.Inf(-1)
	if svg := string(drawn(t, "gaps.svg", Options{}, series)); !strings.Contains(svg, ">values that are not finite: 3</text>") {
		t.Error("the picture doesn't tell of its gaps")
	}
}

// Anything that a metrics file may contain is drawn without a panic or an endless loop.
func TestCurvesOfOddData(t *testing.T) {
	for name, s := range map[string]Series{
		"one point":         {X: []float64{1}, Y: []float64{8}},
		"one late point":    {X: []float64{1e15}, Y: []float64{8}},
		"flat":              {X: []float64{1, 2, 3}, Y: []float64{2, 2, 2}},
		"nearly flat":       {X: []float64{1, 2, 3}, Y: []float64{1, math.Nextafter(1, 2), 1}},
		"zero":              {X: []float64{0, 0, 0}, Y: []float64{0, 0, 0}},
		"tiny":              {X: []float64{1, 2}, Y: []float64{5e-324, 1e-323}},
		"huge":              {X: []float64{1, 2}, Y: []float64{-1e100, 1e100}},
		"beyond huge":       {X: []float64{1, 2, 3}, Y: []float64{-math.MaxFloat64, math.MaxFloat64, 1}},
		"float32's largest": {X: []float64{1, 2, 3}, Y: []float64{2.5, math.MaxFloat32, 2.4}},
		"huge x":            {X: []float64{-1e100, 1e100}, Y: []float64{1, 2}},
		"mostly gaps":       {X: []float64{1, 2, 3}, Y: []float64{nan, 3, nan}},
		"all at one x":      {X: []float64{7, 7, 7}, Y: []float64{1, 2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, options := range []Options{{}, lossOptions} {
				for _, style := range []Style{Line, Points} {
					s.Style, s.Smooth = style, 0.5
					drawn(t, "odd.svg", options, []Series{s})
				}
			}
		})
	}
}

func TestCurvesRefuse(t *testing.T) {
	good := Series{Name: "train", X: []float64{1, 2}, Y: []float64{3, 2}}
	with := func(change func(*Series)) []Series {
		s := good
		change(&s)
		return []Series{good, s}
	}
	for _, c := range []struct {
		file    string
		options Options
		series  []Series
		want    string
	}{
		{"a.pdf", Options{}, []Series{good}, `can't draw a ".pdf" file; give it the extension .png or .svg`},
		{"a", Options{}, []Series{good}, `can't draw a "" file; give it the extension .png or .svg`},
		{"a.png", Options{}, nil, "no series to draw"},
		{"a.png", Options{References: []Reference{{"unigram", nan}}}, []Series{good}, `reference "unigram" is at NaN`},
		{"a.png", Options{}, with(func(s *Series) { s.X = s.X[:1] }), `series "train": 1 values of x and 2 of y`},
		{"a.png", Options{}, with(func(s *Series) { s.X, s.Y = nil, nil }), `series "train": no finite value to draw`},
		{"a.png", Options{}, with(func(s *Series) { s.Y = []float64{nan, nan} }), `series "train": no finite value to draw`},
		{"a.png", Options{}, with(func(s *Series) { s.X = []float64{2, 1} }), `series "train": x falls from 2 to 1 at point 1`},
		{"a.png", Options{}, with(func(s *Series) { s.X = []float64{2, nan} }), `series "train": x of point 1 is NaN`},
		{"a.png", Options{}, with(func(s *Series) { s.Smooth = 1 }), `series "train": smoothing is 1, want 0 or more and below 1`},
		{"a.png", Options{}, with(func(s *Series) { s.Smooth = nan }), `series "train": smoothing is NaN, want 0 or more and below 1`},
		{"a.png", Options{}, with(func(s *Series) { s.Style = 9 }), `series "train": unknown style 9`},
	} {
		path := filepath.Join(t.TempDir(), c.file)
		if err := Curves(path, c.options, c.series); err == nil || err.Error() != path+": "+c.want {
			t.Errorf("error %v, want %s", err, c.want)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: a file was written: %v", c.want, err)
		}
	}
	if err := Curves(filepath.Join(t.TempDir(), "missing", "a.png"), Options{}, []Series{good}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: error %v", err)
	}
}
