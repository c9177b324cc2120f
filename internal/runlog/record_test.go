package runlog

import (
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 250e6, time.UTC)

func sampleTrain(step int) Record {
	return TrainRecord(step, noon, Train{
		Loss: 2.3145, BitsPerByte: 3.3391, LR: 3.9e-4, GradNorm: 0.9125, Tokens: int64(step) * 4096,
		TokensPerSecond: 12345.679, StepMS: 331.777, DataWaitMS: 0.25,
	})
}

func TestRecordJSON(t *testing.T) {
	float32Loss := TrainRecord(1, noon, Train{Loss: float64(float32(2.3)), LR: 1e-7, GradNorm: math.NaN(), BitsPerByte: math.Inf(1)})
	rounded := sampleTrain(12)
	rounded.Train.TokensPerSecond, rounded.Train.StepMS = 12345.6789, 331.77712
	waited, stall := EventRecord(7, noon, EventCheckpoint, "step-7"), 12.3456
	waited.Event.StallMS = &stall
	for name, c := range map[string]struct {
		r              Record
		json, computed string
	}{
		"training step": {rounded,
			`{"step":12,"loss":2.3145,"bits_per_byte":3.3391,"lr":0.00039,"grad_norm":0.9125,"tokens":49152,"tokens_per_s":12345.679,"step_ms":331.777,"data_wait_ms":0.25,"time":"2026-03-04T12:00:00.250Z"}`,
			`{"step":12,"loss":2.3145,"bits_per_byte":3.3391,"lr":0.00039,"grad_norm":0.9125,"tokens":49152}`},
		"float32 and floats that aren't finite": {float32Loss,
			`{"step":1,"loss":2.299999952316284,"bits_per_byte":"Infinity","lr":1e-7,"grad_norm":"NaN","tokens":0,"tokens_per_s":0,"step_ms":0,"data_wait_ms":0,"time":"2026-03-04T12:00:00.250Z"}`,
			`{"step":1,"loss":2.299999952316284,"bits_per_byte":"Infinity","lr":1e-7,"grad_norm":"NaN","tokens":0}`},
		"validation": {ValRecord(100, noon, Val{Loss: 2, BitsPerByte: math.Inf(-1)}),
			`{"step":100,"val_loss":2,"val_bits_per_byte":"-Infinity","time":"2026-03-04T12:00:00.250Z"}`,
			`{"step":100,"val_loss":2,"val_bits_per_byte":"-Infinity"}`},
		"validation on longer rows": {ValRecord(9, noon, Val{Loss: 2, BitsPerByte: 3, Longer: []ValAt{{2, 1.5, 2.25}, {16, math.NaN(), 1}}}),
			`{"step":9,"val_loss":2,"val_bits_per_byte":3,"val_loss@2x":1.5,"val_bits_per_byte@2x":2.25,"val_loss@16x":"NaN","val_bits_per_byte@16x":1,"time":"2026-03-04T12:00:00.250Z"}`,
			`{"step":9,"val_loss":2,"val_bits_per_byte":3,"val_loss@2x":1.5,"val_bits_per_byte@2x":2.25,"val_loss@16x":"NaN","val_bits_per_byte@16x":1}`},
		"validation of a run with one source": {ValRecord(9, noon, Val{Loss: 2, BitsPerByte: 3, Sources: []Source{{Epochs: 0.5, Tokens: 4096}}}),
			`{"step":9,"val_loss":2,"val_bits_per_byte":3,"epochs":0.5,"tokens":4096,"time":"2026-03-04T12:00:00.250Z"}`,
			`{"step":9,"val_loss":2,"val_bits_per_byte":3,"epochs":0.5,"tokens":4096}`},
		"validation of a run with a mixture": {ValRecord(9, noon, Val{Loss: 2, BitsPerByte: 3, Longer: []ValAt{{2, 1.5, 2.25}},
			BySource: []ValOf{{"a \"@\" b", 4, 6}, {"code", 1, 1.5}},
			Sources:  []Source{{"a \"@\" b", 0.5, 4096}, {"code", 1.25, 1024}}}),
			`{"step":9,"val_loss":2,"val_bits_per_byte":3,"val_loss@2x":1.5,"val_bits_per_byte@2x":2.25,"val_loss@a \"@\" b":4,"val_bits_per_byte@a \"@\" b":6,"val_loss@code":1,"val_bits_per_byte@code":1.5,"epochs@a \"@\" b":0.5,"tokens@a \"@\" b":4096,"epochs@code":1.25,"tokens@code":1024,"time":"2026-03-04T12:00:00.250Z"}`,
			`{"step":9,"val_loss":2,"val_bits_per_byte":3,"val_loss@2x":1.5,"val_bits_per_byte@2x":2.25,"val_loss@a \"@\" b":4,"val_bits_per_byte@a \"@\" b":6,"val_loss@code":1,"val_bits_per_byte@code":1.5,"epochs@a \"@\" b":0.5,"tokens@a \"@\" b":4096,"epochs@code":1.25,"tokens@code":1024}`},
		"a checkpoint that training waited for": {waited,
			`{"step":7,"event":"checkpoint","detail":"step-7","checkpoint_stall_ms":12.346,"time":"2026-03-04T12:00:00.250Z"}`,
			`{"step":7,"event":"checkpoint","detail":"step-7"}`},
		"event in another time zone": {EventRecord(7, noon.In(time.FixedZone("", 3600)), EventStopped, `signal "terminated"`),
			`{"step":7,"event":"stopped","detail":"signal \"terminated\"","time":"2026-03-04T12:00:00.250Z"}`,
			`{"step":7,"event":"stopped","detail":"signal \"terminated\""}`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.r.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.json {
				t.Errorf("JSON\n got %s\nwant %s", got, c.json)
			}
			if got := c.r.Computed(); got != c.computed {
				t.Errorf("Computed\n got %s\nwant %s", got, c.computed)
			}
			var back Record
			if err := back.UnmarshalJSON(got); err != nil {
				t.Fatal(err)
			}
			if back.Computed() != c.computed || back.Kind != c.r.Kind || !back.Time.Equal(noon) {
				t.Errorf("read back %+v, wrote %+v", back, c.r)
			}
		})
	}
}

func TestRecordComparesAfterReading(t *testing.T) {
	r := EventRecord(3, noon.Add(123456*time.Nanosecond).Local(), EventCheckpoint, "step-3")
	b, err := r.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var back Record
	if err := back.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, r) {
		t.Errorf("read back %+v, wrote %+v", back, r)
	}
}

// The computed floats survive bit for bit, including negative zero and subnormals.
func TestRecordFloatsAreLossless(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	floats := []float64{0, math.Copysign(0, -1), math.SmallestNonzeroFloat64, math.MaxFloat64, -1.0 / 3, 1e21, 1e-7}
	for range 2000 {
		floats = append(floats, math.Float64frombits(rng.Uint64()), float64(math.Float32frombits(rng.Uint32())))
	}
	for _, x := range floats {
		r := TrainRecord(1, noon, Train{Loss: x, LR: x, GradNorm: x, BitsPerByte: x})
		b, err := r.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var back Record
		if err := back.UnmarshalJSON(b); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		for _, y := range []float64{back.Train.Loss, back.Train.LR, back.Train.GradNorm, back.Train.BitsPerByte} {
			if math.Float64bits(y) != math.Float64bits(x) && !(math.IsNaN(x) && math.IsNaN(y)) {
				t.Fatalf("wrote %x, read %x", math.Float64bits(x), math.Float64bits(y))
			}
		}
	}
}

func TestComputedTellsRunsApart(t *testing.T) {
	a, b := sampleTrain(5), sampleTrain(5)
	b.Time = noon.Add(time.Hour)
	b.Train.TokensPerSecond, b.Train.StepMS, b.Train.DataWaitMS = 1, 2, 3
	if a.Computed() != b.Computed() {
		t.Error("the wall clock counts as computation")
	}
	b.Train.Loss = math.Nextafter(a.Train.Loss, 3)
	if a.Computed() == b.Computed() {
		t.Error("a loss of one unit in the last place more is not seen")
	}
}

func TestRecordRefusesToWrite(t *testing.T) {
	for want, r := range map[string]Record{
		"has no kind":            {Step: 3, Time: noon},
		"has no time":            {Kind: KindVal, Step: 3},
		"step is -1":             ValRecord(-1, noon, Val{}),
		"event has no name":      EventRecord(1, noon, "", "x"),
		"rows 1 times as long":   ValRecord(1, noon, Val{Longer: []ValAt{{Times: 1}}}),
		"of source \"a\"":        ValRecord(1, noon, Val{BySource: []ValOf{{Name: "b"}, {Name: "a"}}}),
		"source \"a\" follows":   ValRecord(1, noon, Val{Sources: []Source{{Name: "b"}, {Name: "a"}}}),
		"rows 2 times as long":   ValRecord(1, noon, Val{Longer: []ValAt{{Times: 2}, {Times: 2}}}),
		"record of step 4 has n": {Step: 4},
	} {
		if b, err := r.MarshalJSON(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: wrote %s, error %v, want %q", r, b, err, want)
		}
	}
}

func TestRecordRefusesToRead(t *testing.T) {
	const val = `{"step":1,"val_loss":2,"val_bits_per_byte":3,"time":"2026-03-04T12:00:00Z"}`
	if err := new(Record).UnmarshalJSON([]byte(val)); err != nil {
		t.Fatalf("%s: %v", val, err)
	}
	for _, c := range []struct{ old, new, want string }{
		{val, `[1]`, "cannot unmarshal array"},
		{val, `null`, "not a training step"},
		{val, `{"step":1}`, "not a training step"},
		{`"step":1,`, ``, `no "step"`},
		{`,"val_bits_per_byte":3`, ``, `no "val_bits_per_byte"`},
		{`"step":1`, `"step":1.5`, `"step":`},
		{`"step":1`, `"step":-1`, "step is -1"},
		{`"step":1`, `"step":1,"loss":2`, `no "bits_per_byte"`},
		{`"step":1`, `"step":1,"vall_loss":2,"zeta":1`, `unknown key "vall_loss"`},
		{`"val_loss":2`, `"val_loss":null`, `"val_loss": is null`},
		{`"val_loss":2`, `"val_loss":"two"`, `"val_loss": "two" is not a number`},
		{`"val_loss":2`, `"val_loss":1e999`, `"val_loss":`},
		{`"2026-03-04T12:00:00Z"`, `"yesterday"`, `"time":`},
		{`"step":1`, `"step":1,"val_loss@2x":3`, `no "val_bits_per_byte@2x"`},
		{`"step":1`, `"step":1,"val_bits_per_byte@2x":3`, `unknown key "val_bits_per_byte@2x"`},
		{`"step":1`, `"step":1,"val_loss@1x":3,"val_bits_per_byte@1x":3`, `rows 1 times as long`},
		{`"step":1`, `"step":1,"val_loss@02x":3,"val_bits_per_byte@02x":3`, `no "val_loss@2x"`},
	} {
		line := strings.Replace(val, c.old, c.new, 1)
		if err := new(Record).UnmarshalJSON([]byte(line)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", line, err, c.want)
		}
	}
}

func FuzzRecordUnmarshalJSON(f *testing.F) {
	for _, r := range []Record{sampleTrain(1), ValRecord(2, noon, Val{Loss: math.NaN(), Longer: []ValAt{{Times: 4}}}), EventRecord(3, noon, EventResumed, "")} {
		b, err := r.MarshalJSON()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r, back Record
		if r.UnmarshalJSON(b) != nil {
			return
		}
		text, err := r.appendJSON(nil, true)
		if err != nil {
			t.Fatalf("%q was read and can't be written: %v", b, err)
		}
		if err := back.UnmarshalJSON(text); err != nil || back.Computed() != r.Computed() {
			t.Fatalf("%q was written as %q: %v", b, text, err)
		}
	})
}
