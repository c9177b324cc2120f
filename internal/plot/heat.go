package plot

import (
	"errors"
	"fmt"
	"image/color"
	"math"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Heat is a table of shares from 0 to 1, drawn as coloured cells. A NaN leaves its cell empty.
type Heat struct {
	Title          string // "" for none
	XLabel, YLabel string
	// Columns and Rows are the labels of the columns, from the left, and of the rows, from the top.
	Columns, Rows []string
	// Values are the shares, row by row.
	Values [][]float64
}

// HeatMap draws a table of shares to path, as PNG or SVG by its extension. The same input
// gives the same bytes.
func HeatMap(path string, h Heat) error {
	return drawTo(path, h.check, func(c draw.Canvas) { h.draw(c) })
}

func (h Heat) check() error {
	if len(h.Columns) == 0 || len(h.Rows) == 0 {
		return errors.New("no cell to draw")
	}
	if len(h.Values) != len(h.Rows) {
		return fmt.Errorf("%d names for %d rows", len(h.Rows), len(h.Values))
	}
	for i, row := range h.Values {
		if len(row) != len(h.Columns) {
			return fmt.Errorf("row %q has %d values for %d columns", h.Rows[i], len(row), len(h.Columns))
		}
		for _, v := range row {
			if v < 0 || v > 1 {
				return fmt.Errorf("row %q: %g is no share, want 0 to 1", h.Rows[i], v)
			}
		}
	}
	return nil
}

// share returns the color of a value: vermilion for 0, white in the middle, bluish green for 1,
// which color-blind people can distinguish.
func share(v float64) color.RGBA {
	end, far := palette[1], 1-2*v
	if v > 0.5 {
		end, far = palette[2], 2*v-1
	}
	mix := func(c uint8) uint8 { return uint8(math.Round(far*float64(c) + (1-far)*255)) }
	return color.RGBA{mix(end.R), mix(end.G), mix(end.B), 0xff}
}

func (h Heat) draw(c draw.Canvas) {
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	c = draw.Crop(c, margin, -margin, margin, -margin)

	tick, label, title := style(tickSize, ink), style(labelSize, ink), style(titleSize, ink)
	title.Font.Weight = xfont.WeightBold
	title.YAlign = text.YTop
	names := vg.Length(0)
	for _, r := range h.Rows {
		names = max(names, tick.Width(r))
	}
	line := tick.Height("0")
	cells := draw.Crop(c, names+line+16, 0, 2*line+14, 0)
	if h.Title != "" {
		c.FillText(title, vg.Point{X: cells.Min.X, Y: c.Max.Y}, h.Title)
		cells.Max.Y -= title.Height(h.Title) + 8
	}
	w := (cells.Max.X - cells.Min.X) / vg.Length(len(h.Columns))
	high := (cells.Max.Y - cells.Min.Y) / vg.Length(len(h.Rows))

	tick.XAlign, tick.YAlign = text.XRight, text.YCenter
	for i, r := range h.Rows {
		c.FillText(tick, vg.Point{X: cells.Min.X - 5, Y: cells.Max.Y - (vg.Length(i)+0.5)*high}, r)
	}
	tick.XAlign, tick.YAlign = text.XCenter, text.YTop
	for j, name := range h.Columns {
		c.FillText(tick, vg.Point{X: cells.Min.X + (vg.Length(j)+0.5)*w, Y: cells.Min.Y - 4}, name)
	}
	label.XAlign = text.XCenter
	c.FillText(label, vg.Point{X: (cells.Min.X + cells.Max.X) / 2, Y: c.Min.Y}, h.XLabel)
	label.Rotation, label.YAlign = math.Pi/2, text.YTop
	c.FillText(label, vg.Point{X: c.Min.X, Y: (cells.Min.Y + cells.Max.Y) / 2}, h.YLabel)

	value := style(tickSize, ink)
	value.XAlign, value.YAlign = text.XCenter, text.YCenter
	for i, row := range h.Values {
		for j, v := range row {
			if math.IsNaN(v) {
				continue
			}
			cell := vg.Rectangle{
				Min: vg.Point{X: cells.Min.X + vg.Length(j)*w + 0.5, Y: cells.Max.Y - vg.Length(i+1)*high + 0.5},
				Max: vg.Point{X: cells.Min.X + vg.Length(j+1)*w - 0.5, Y: cells.Max.Y - vg.Length(i)*high - 0.5},
			}
			c.SetColor(share(v))
			c.Fill(cell.Path())
			percent := fmt.Sprintf("%.0f", 100*v)
			if value.Width(percent)+2 <= w && value.Height(percent) <= high {
				c.FillText(value, vg.Point{X: (cell.Min.X + cell.Max.X) / 2, Y: (cell.Min.Y + cell.Max.Y) / 2}, percent)
			}
		}
	}
}
