package plot

import (
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// curve is a series prepared for drawing.
type curve struct {
	// The backs of all curves are drawn before any front, so that noise hides no curve.
	back, front []plot.Plotter
	// thumbnail draws the curve's symbol for the legend from x to x+thumbnailWidth at height y.
	thumbnail func(c *draw.Canvas, x, y vg.Length)
}

const (
	thumbnailWidth = 22.0
	pointRadius    = 2.6
)

func newCurve(s Series, ink color.RGBA, dashes []vg.Length, e extent) curve {
	thick := draw.LineStyle{Color: ink, Width: 1.6, Dashes: dashes}
	thin := draw.LineStyle{Color: ink, Width: 0.8, Dashes: dashes}
	noise := draw.LineStyle{Color: pale(ink), Width: 0.8}
	dot := draw.GlyphStyle{Color: ink, Radius: pointRadius, Shape: draw.CircleGlyph{}}
	bar := func(c *draw.Canvas, x, y vg.Length, line draw.LineStyle) {
		c.StrokeLine2(line, x, y, x+thumbnailWidth, y)
	}
	switch {
	case s.Style == Points:
		return curve{
			front: append(lines(s.X, s.Y, thin, e), dots(s.X, s.Y, dot)...),
			thumbnail: func(c *draw.Canvas, x, y vg.Length) {
				bar(c, x, y, thin)
				c.DrawGlyphNoClip(dot, vg.Point{X: x + thumbnailWidth/2, Y: y})
			},
		}
	case s.Smooth > 0:
		return curve{
			back:  lines(s.X, s.Y, noise, e),
			front: lines(s.X, smooth(s.Y, s.Smooth), thick, e),
			thumbnail: func(c *draw.Canvas, x, y vg.Length) {
				bar(c, x, y, draw.LineStyle{Color: noise.Color, Width: 6})
				bar(c, x, y, thick)
			},
		}
	}
	return curve{
		front:     lines(s.X, s.Y, thick, e),
		thumbnail: func(c *draw.Canvas, x, y vg.Length) { bar(c, x, y, thick) },
	}
}

// lines draws a curve with gaps. A single point between two gaps is drawn as a dot.
func lines(x, y []float64, line draw.LineStyle, e extent) []plot.Plotter {
	var out []plot.Plotter
	for _, run := range runs(x, y) {
		xys := points(thin(run, e.xMin, e.xMax))
		if len(xys) == 1 {
			out = append(out, &plotter.Scatter{
				XYs:        xys,
				GlyphStyle: draw.GlyphStyle{Color: line.Color, Radius: line.Width, Shape: draw.CircleGlyph{}},
			})
			continue
		}
		out = append(out, &plotter.Line{XYs: xys, LineStyle: line})
	}
	return out
}

// dots draws a curve's points with a white rim, so that they are visible on the lines.
func dots(x, y []float64, dot draw.GlyphStyle) []plot.Plotter {
	var out []plot.Plotter
	for _, run := range runs(x, y) {
		rim := dot
		rim.Color, rim.Radius = color.White, dot.Radius+0.8
		out = append(out,
			&plotter.Scatter{XYs: points(run), GlyphStyle: rim},
			&plotter.Scatter{XYs: points(run), GlyphStyle: dot})
	}
	return out
}

func points(run []point) plotter.XYs {
	xys := make(plotter.XYs, len(run))
	for i, p := range run {
		xys[i].X, xys[i].Y = p.X, p.Y
	}
	return xys
}

// referenceLine is a dashed line over the whole width, with its label above its right end, where
// the extent leaves room for it.
type referenceLine Reference

// Plot implements plot.Plotter.
func (r referenceLine) Plot(c draw.Canvas, p *plot.Plot) {
	_, toY := p.Transforms(&c)
	y := toY(r.Y)
	c.StrokeLine2(draw.LineStyle{
		Color: faintInk, Width: 1, Dashes: []vg.Length{5, 3},
	}, c.Min.X, y, c.Max.X, y)

	label := style(tickSize, faintInk)
	label.XAlign = text.XRight
	at := vg.Point{X: c.Max.X - 3, Y: y + 3}
	// Keep grid lines from crossing the label.
	box := label.Rectangle(r.Label).Add(at)
	box.Min.X -= 2
	box.Max.X += 2
	c.SetColor(color.White)
	c.Fill(box.Path())
	c.FillText(label, at, r.Label)
}

// drawLegend draws the series' symbols and names in rows from left to right, below the top of c,
// and returns its height.
func drawLegend(c draw.Canvas, left, right vg.Length, series []Series, curves []curve) vg.Length {
	const gap, between = 6.0, 18.0
	name := style(tickSize, ink)
	name.YAlign = text.YCenter
	row := name.FontExtents().Height * 1.3
	x, y := left, c.Max.Y-row/2
	for i, s := range series {
		w := thumbnailWidth + gap + name.Width(s.Name)
		if x > left && x+w > right {
			x, y = left, y-row
		}
		curves[i].thumbnail(&c, x, y-1) // the middle of the small letters
		c.FillText(name, vg.Point{X: x + thumbnailWidth + gap, Y: y}, s.Name)
		x += w + between
	}
	return c.Max.Y - y + row/2
}
