package plot

import (
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHeatMap(t *testing.T) {
	h := Heat{Title: "passkey", XLabel: "length", YLabel: "depth", Columns: []string{"4k", "8k", "16k"}, Rows: []string{"0.0", "1.0"},
		Values: [][]float64{{1, 0.8, 0}, {0.4, math.NaN(), 0.2}}}
	svg := filepath.Join(t.TempDir(), "heat.svg")
	if err := HeatMap(svg, h); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(svg)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{">passkey</text>", ">length</text>", ">depth</text>", ">4k</text>", ">1.0</text>", ">100</text>", ">80</text>", ">0</text>"} {
		if n := strings.Count(string(text), want); n != 1 {
			t.Errorf("%s is there %d times", want, n)
		}
	}
	again := filepath.Join(t.TempDir(), "again.svg")
	if err := HeatMap(again, h); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(again); err != nil || string(second) != string(text) {
		t.Errorf("the same table gives another picture (%v)", err)
	}
	for v, want := range map[float64]color.RGBA{0: palette[1], 0.5: {255, 255, 255, 255}, 1: palette[2]} {
		if got := share(v); got != want {
			t.Errorf("the color of %g is %v, want %v", v, got, want)
		}
	}
}

func TestHeatMapRefuses(t *testing.T) {
	for _, c := range []struct {
		h    Heat
		want string
	}{
		{Heat{}, "no cell"},
		{Heat{Columns: []string{"a"}, Rows: []string{"b"}}, "1 names for 0 rows"},
		{Heat{Columns: []string{"a"}, Rows: []string{"b"}, Values: [][]float64{{1, 1}}}, "2 values for 1 columns"},
		{Heat{Columns: []string{"a"}, Rows: []string{"b"}, Values: [][]float64{{1.5}}}, "1.5 is no share"},
	} {
		path := filepath.Join(t.TempDir(), "a.png")
		if err := HeatMap(path, c.h); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("a picture was written")
		}
	}
}
