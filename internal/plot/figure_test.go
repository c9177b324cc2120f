package plot

import (
	"fmt"
	"testing"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/recorder"
)

// written is a text with its bounding box.
type written struct {
	text string
	box  vg.Rectangle
}

// texts draws a figure and returns its horizontal texts.
func texts(options Options, series []Series) []written {
	var canvas recorder.Canvas
	drawFigure(draw.NewCanvas(&canvas, width, height), options, series)
	var all []written
	turned := 0
	for _, action := range canvas.Actions {
		switch a := action.(type) {
		case *recorder.Rotate:
			turned++
		case *recorder.Pop:
			turned = 0
		case *recorder.FillString:
			if turned > 0 {
				continue
			}
			s := style(a.Size, ink)
			s.Font.Weight = a.Font.Weight
			all = append(all, written{a.String, vg.Rectangle{
				Min: a.Point,
				Max: a.Point.Add(vg.Point{X: s.Width(a.String), Y: 0.7 * a.Size}),
			}})
		}
	}
	return all
}

func TestTextsDontOverlap(t *testing.T) {
	var many []Series
	for i := range 7 {
		s := lossSeries(1200)[i%2]
		s.Name = fmt.Sprintf("run number %d, with a name of some length", i)
		many = append(many, s)
	}
	noTitle := lossOptions
	noTitle.Title = ""
	tokens := lossSeries(1200)
	for _, s := range tokens {
		for i := range s.X {
			s.X[i] *= 819
		}
	}
	for name, c := range map[string]struct {
		options Options
		series  []Series
	}{
		"usual":          {lossOptions, lossSeries(600)},
		"no title":       {noTitle, lossSeries(600)},
		"not cut":        {Options{XLabel: "step", YLabel: "loss", References: lossOptions.References}, lossSeries(600)},
		"many":           {lossOptions, many},
		"tokens":         {lossOptions, tokens},
		"high reference": {Options{References: []Reference{{"reference", 50}}}, lossSeries(600)},
	} {
		t.Run(name, func(t *testing.T) {
			all := texts(c.options, c.series)
			if len(all) < 10 {
				t.Fatalf("only %d texts: %v", len(all), all)
			}
			for i, a := range all {
				if a.box.Min.X < 0 || a.box.Min.Y < 0 || a.box.Max.X > width || a.box.Max.Y > height {
					t.Errorf("%q leaves the picture: %v", a.text, a.box)
				}
				for _, b := range all[:i] {
					if a.box.Min.X < b.box.Max.X && b.box.Min.X < a.box.Max.X && a.box.Min.Y < b.box.Max.Y && b.box.Min.Y < a.box.Max.Y {
						t.Errorf("%q %v lies on %q %v", a.text, a.box, b.text, b.box)
					}
				}
			}
		})
	}
}

// TestSecondRoundIsDashed: series that reuse a color are distinguished by dashes.
func TestSecondRoundIsDashed(t *testing.T) {
	for n, want := range map[int]bool{len(palette): false, len(palette) + 1: true} {
		var series []Series
		for i := range n {
			series = append(series, Series{Name: fmt.Sprint(i), X: []float64{0, 1}, Y: []float64{1, float64(i)}})
		}
		var canvas recorder.Canvas
		drawFigure(draw.NewCanvas(&canvas, width, height), Options{XLabel: "x", YLabel: "y"}, series)
		dashed := false
		for _, action := range canvas.Actions {
			if dash, ok := action.(*recorder.SetLineDash); ok && len(dash.Dashes) > 0 {
				dashed = true
			}
		}
		if dashed != want {
			t.Errorf("%d series: dashed is %v", n, dashed)
		}
	}
}
