// Command calibrate prints the rates of ops for internal/forecast/h100.yaml, or for another GPU's
// file, from the tables of ops that `sambatrain bench` prints on that GPU, or from its JSON output:
// the geometric mean of each op's rates over all tables that contain it.
//
//	go run ./scripts/scale/calibrate docs/bench/h100.md
//	go run ./scripts/scale/calibrate 421m.json 1.3b.json
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"regexp"
	"slices"
)

// callMicros is call_us of the calibration: the fixed cost of a call, which rates exclude.
const callMicros = 5

// arithmetic is the arithmetic intensity, in operations per byte, above which an op counts as
// limited by compute.
const arithmetic = 100

// result is the part of bench's result that is read.
type result struct {
	Ops []op `json:"ops"`
}

type op struct {
	Op     string  `json:"op"`
	Calls  int     `json:"calls"`
	MS     float64 `json:"ms"`
	GFLOPs float64 `json:"gflops"`
	GBs    float64 `json:"gb_per_s"`
}

// row matches a row of the table that bench prints: op, calls, ms, share, GFLOP/s, GB/s.
var row = regexp.MustCompile(`(?m)^ *(\w+) +(\d+) +([\d.]+) +[\d.]+% +([\d.]+) +([\d.]+) *$`)

// parse reads a result as JSON, or a page with tables.
func parse(text []byte) ([]op, error) {
	var r result
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		err := json.Unmarshal(text, &r)
		return r.Ops, err
	}
	for _, m := range row.FindAllSubmatch(text, -1) {
		o := op{Op: string(m[1])}
		if _, err := fmt.Sscan(fmt.Sprintf("%s %s %s %s", m[2], m[3], m[4], m[5]), &o.Calls, &o.MS, &o.GFLOPs, &o.GBs); err != nil {
			return nil, fmt.Errorf("%s: %w", m[0], err)
		}
		r.Ops = append(r.Ops, o)
	}
	return r.Ops, nil
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: calibrate FILE...")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "calibrate:", err)
		os.Exit(1)
	}
}

// mean is a geometric mean.
type mean struct {
	logs float64
	n    int
}

func (m *mean) add(x float64) { m.logs, m.n = m.logs+math.Log(x), m.n+1 }

func (m *mean) value() float64 { return math.Exp(m.logs / float64(m.n)) }

func run(w io.Writer, paths []string) error {
	type rates struct{ tflops, gbs mean }
	ops := map[string]*rates{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		list, err := parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if len(list) == 0 {
			return fmt.Errorf("%s: has no table of ops; is it of sambatrain bench?", path)
		}
		for _, o := range list {
			work := o.MS - float64(o.Calls)*callMicros/1e3
			if work <= 0 || o.GBs <= 0 {
				continue // too short to measure
			}
			if ops[o.Op] == nil {
				ops[o.Op] = &rates{}
			}
			if o.GFLOPs > arithmetic*o.GBs {
				ops[o.Op].tflops.add(o.GFLOPs * o.MS / work / 1e3)
			} else {
				ops[o.Op].gbs.add(o.GBs * o.MS / work)
			}
		}
	}
	fmt.Fprintln(w, "ops:")
	for _, op := range slices.Sorted(maps.Keys(ops)) {
		switch r := ops[op]; {
		case r.gbs.n > 0 && r.tflops.n > 0:
			return fmt.Errorf("%s is limited by arithmetic in one file and by memory in another: give them apart", op)
		case r.tflops.n > 0:
			fmt.Fprintf(w, "  %s: {tflops: %.0f}\n", op, r.tflops.value())
		default:
			fmt.Fprintf(w, "  %s: {gbs: %.0f}\n", op, r.gbs.value())
		}
	}
	return nil
}
