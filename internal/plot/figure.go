package plot

import (
	"fmt"
	"image/color"
	"strings"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// palette is that of Okabe and Ito, "Color Universal Design" (2008), which color-blind people can
// distinguish, without its yellow, which is too pale for a line. A picture with more series repeats
// it with dashed lines.
var palette = []color.RGBA{
	{0x00, 0x72, 0xb2, 0xff}, // blue
	{0xd5, 0x5e, 0x00, 0xff}, // vermilion
	{0x00, 0x9e, 0x73, 0xff}, // bluish green
	{0xcc, 0x79, 0xa7, 0xff}, // reddish purple
	{0xe6, 0x9f, 0x00, 0xff}, // orange
	{0x56, 0xb4, 0xe9, 0xff}, // sky blue
}

// dashes returns the dash pattern for a repetition of the palette, in points: none for the first.
func dashes(round int) []vg.Length {
	if round == 0 {
		return nil
	}
	return []vg.Length{6, 2 + vg.Length(round)}
}

var (
	ink      = color.Gray{0x26}
	faintInk = color.Gray{0x66}
	gridInk  = color.Gray{0xe6}
)

const (
	margin    = 12.0 // points around the figure
	titleSize = 13.0
	labelSize = 10.5
	tickSize  = 9.5
	noteSize  = 8.0
)

func style(size vg.Length, c color.Color) text.Style {
	return text.Style{
		Color:   c,
		Font:    font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, size),
		XAlign:  text.XLeft,
		YAlign:  text.YBottom,
		Handler: plot.DefaultTextHandler,
	}
}

// pale mixes c with white into an opaque color, so that crossings of pale lines don't get darker.
func pale(c color.RGBA) color.RGBA {
	mix := func(v uint8) uint8 { return uint8(0.32*float64(v) + 0.68*255) }
	return color.RGBA{mix(c.R), mix(c.G), mix(c.B), 0xff}
}

// drawFigure draws, from the top: the title, the legend, the curves with their axes, the notes.
func drawFigure(c draw.Canvas, options Options, series []Series) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	c = draw.Crop(c, margin, -margin, margin, -margin)

	extent := extentOf(options, series)
	p := newAxes(options)
	for _, r := range options.References {
		p.Add(referenceLine(r)) // below the curves, so that its label hides none of them
	}
	curves := make([]curve, len(series))
	for i, s := range series {
		curves[i] = newCurve(s, palette[i%len(palette)], dashes(i/len(palette)), extent)
	}
	for _, layer := range []func(curve){
		func(v curve) { p.Add(v.back...) },
		func(v curve) { p.Add(v.front...) },
	} {
		for _, v := range curves {
			layer(v)
		}
	}
	// Only now, since Add widens the axes to everything that is added.
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = extent.xMin, extent.xMax, extent.yMin, extent.yMax

	// The legend is above the curves, where it can't hide them.
	left := p.DataCanvas(c).Min.X
	right := c.Max.X
	if options.Title != "" {
		title := style(titleSize, ink)
		title.Font.Weight = xfont.WeightBold
		title.YAlign = text.YTop
		c.FillText(title, vg.Point{X: left, Y: c.Max.Y}, options.Title)
		c.Max.Y -= title.Height(options.Title) + 6
	}
	c.Max.Y -= drawLegend(c, left, right, series, curves) + 6

	if notes := extent.notes(); notes != "" {
		note := style(noteSize, faintInk)
		note.XAlign = text.XRight
		c.FillText(note, vg.Point{X: c.Max.X, Y: c.Min.Y}, notes)
	}
	p.Draw(c)
}

func newAxes(options Options) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Label.Text, p.Y.Label.Text = options.XLabel, options.YLabel
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks{most: 8, whole: true}, ticks{most: 6}
	if len(options.XMarks) > 0 {
		p.X.Tick.Marker = marks(options.XMarks)
	}
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = style(labelSize, ink).Font
		axis.Label.TextStyle.Color = ink
		axis.Label.Padding = 5
		axis.Tick.Label.Font = style(tickSize, ink).Font
		axis.Tick.Label.Color = ink
		axis.Tick.LineStyle = draw.LineStyle{Color: faintInk, Width: 0.6}
		axis.Tick.Length = 4
		axis.LineStyle = draw.LineStyle{Color: faintInk, Width: 0.8}
		axis.Padding = 0
	}
	// The grid is enough for y, and gonum draws a y axis slightly off the data's left edge.
	p.Y.LineStyle.Width, p.Y.Tick.LineStyle.Width = 0, 0

	grid := plotter.NewGrid()
	grid.Horizontal = draw.LineStyle{Color: gridInk, Width: 0.6}
	grid.Vertical = grid.Horizontal
	p.Add(grid)
	return p
}

func (e extent) notes() string {
	var notes []string
	if e.cut() {
		notes = append(notes, fmt.Sprintf("y axis cut, highest value %.4g", e.highest))
	}
	if e.gaps > 0 {
		notes = append(notes, fmt.Sprintf("values that are not finite: %d", e.gaps))
	}
	return strings.Join(notes, "; ")
}
