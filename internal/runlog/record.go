// Package runlog has the outputs of a run in progress: metrics.jsonl, a TensorBoard event file,
// progress on the console and the structured log.
//
// A [Record] is the unit of all of them. The training loop makes one for each step, validation
// and event, and passes the same value to [Metrics.Append], [Events.Append] and [Console.Step].
package runlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Kind says which part of a Record is set.
type Kind uint8

// The kinds of record. The zero Kind is none of them, so that a forgotten one is an error.
const (
	KindTrain Kind = iota + 1
	KindVal
	KindEvent
)

// Names of events.
const (
	EventCheckpoint = "checkpoint"
	EventResumed    = "resumed"
	EventStopped    = "stopped"
	EventSkipped    = "skipped"
)

// A Record is one line of metrics.jsonl: a training step, a validation or an event, depending on
// Kind. Make one with [TrainRecord], [ValRecord] or [EventRecord].
type Record struct {
	Kind Kind
	// Step counts the optimizer steps done: the first training step's record has Step 1, and the
	// checkpoint of step s holds the state right after the record of step s.
	Step int
	// Time is when the record was made, in UTC, to the millisecond.
	Time time.Time

	Train Train
	Val   Val
	Event Event
}

// Train is what one optimizer step measured. The fields down to Tokens depend only on the data, the
// recipe and the seed, and are written without loss: a resumed run must repeat them bit for bit.
// The others are wall-clock measurements, written to three decimals.
type Train struct {
	Loss        float64 // mean cross-entropy, nats per token
	BitsPerByte float64 // the same loss in bits per byte of text
	LR          float64 // learning rate that the step used
	GradNorm    float64 // global L2 norm of the gradients before clipping
	Tokens      int64   // tokens trained on since step 0, including this step

	TokensPerSecond float64
	StepMS          float64 // wall time of the whole step
	DataWaitMS      float64 // the part of it spent waiting for a batch
}

// Val is what one validation measured. Its numbers are written without loss.
type Val struct {
	Loss        float64 // mean cross-entropy, nats per token
	BitsPerByte float64
	// Longer are the results on rows longer than those of training, by increasing Times; nil if
	// there are none. Their keys are val_loss@2x and so on.
	Longer []ValAt
	// BySource are the results on the rows of each source of a mixture, by increasing Name; nil
	// without a mixture. Their keys are val_loss@ and the Name, and so on.
	BySource []ValOf
	// Sources say how much of the text training has read so far, by increasing Name; nil if the
	// text is generated. Their keys are epochs and tokens, followed by @ and the Name if there is
	// one.
	Sources []Source
}

// Source is how much training has read of one source of text.
type Source struct {
	Name   string // the name of a mixture's source; empty without a mixture
	Epochs float64
	Tokens int64
}

// ValAt is a validation on rows Times as long as those of training.
type ValAt struct {
	Times       int     `json:"times"`
	Loss        float64 `json:"loss"` // mean cross-entropy, nats per token
	BitsPerByte float64 `json:"bits_per_byte"`
}

// ValOf is a validation on the rows of one source of a mixture.
type ValOf struct {
	Name        string  `json:"name"`
	Loss        float64 `json:"loss"` // mean cross-entropy, nats per token
	BitsPerByte float64 `json:"bits_per_byte"`
}

// Event is something that happened to the run.
type Event struct {
	Name   string // EventCheckpoint, EventResumed, EventStopped or EventSkipped
	Detail string // for people: a checkpoint's folder, what a resume changed, why a step was skipped
	// StallMS is how long training waited for a checkpoint; nil for other events.
	StallMS *float64
}

// TrainRecord returns the record of a training step.
func TrainRecord(step int, at time.Time, t Train) Record {
	return Record{Kind: KindTrain, Step: step, Time: recordTime(at), Train: t}
}

// ValRecord returns the record of a validation made after step.
func ValRecord(step int, at time.Time, v Val) Record {
	return Record{Kind: KindVal, Step: step, Time: recordTime(at), Val: v}
}

// EventRecord returns the record of an event that happened after step.
func EventRecord(step int, at time.Time, name, detail string) Record {
	return Record{Kind: KindEvent, Step: step, Time: recordTime(at), Event: Event{Name: name, Detail: detail}}
}

// recordTime rounds a time to the precision of a file, so that a record equals what is read back.
func recordTime(at time.Time) time.Time { return at.UTC().Truncate(time.Millisecond) }

// field ties a key of metrics.jsonl to a Record's field. One table serves the writer, the strict
// reader and TensorBoard's tags, so that a quantity has the same name everywhere.
type field struct {
	key   string
	at    func(*Record) any // *float64, *int64, *int, *string or *time.Time
	clock bool              // a wall-clock measurement, not a result of the computation
}

var (
	stepField = field{key: "step", at: func(r *Record) any { return &r.Step }}
	timeField = field{key: "time", at: func(r *Record) any { return &r.Time }, clock: true}

	fieldsOf = map[Kind][]field{
		KindTrain: {
			stepField,
			{key: "loss", at: func(r *Record) any { return &r.Train.Loss }},
			{key: "bits_per_byte", at: func(r *Record) any { return &r.Train.BitsPerByte }},
			{key: "lr", at: func(r *Record) any { return &r.Train.LR }},
			{key: "grad_norm", at: func(r *Record) any { return &r.Train.GradNorm }},
			{key: "tokens", at: func(r *Record) any { return &r.Train.Tokens }},
			{key: "tokens_per_s", at: func(r *Record) any { return &r.Train.TokensPerSecond }, clock: true},
			{key: "step_ms", at: func(r *Record) any { return &r.Train.StepMS }, clock: true},
			{key: "data_wait_ms", at: func(r *Record) any { return &r.Train.DataWaitMS }, clock: true},
			timeField,
		},
		KindVal: {
			stepField,
			{key: lossKey, at: func(r *Record) any { return &r.Val.Loss }},
			{key: bitsPerByteKey, at: func(r *Record) any { return &r.Val.BitsPerByte }},
			timeField,
		},
		KindEvent: {
			stepField,
			{key: "event", at: func(r *Record) any { return &r.Event.Name }},
			{key: "detail", at: func(r *Record) any { return &r.Event.Detail }},
			timeField,
		},
	}
)

// fields returns the fields of the record's kind, and two for each longer row length and each
// source's validation and text.
func (r *Record) fields() []field {
	fields := fieldsOf[r.Kind]
	last := len(fields) - 1 // the time
	if r.Kind == KindEvent && r.Event.StallMS != nil {
		return slices.Concat(fields[:last], []field{{key: stallKey, at: func(r *Record) any { return r.Event.StallMS }, clock: true}}, fields[last:])
	}
	if r.Kind != KindVal {
		return fields
	}
	return slices.Concat(fields[:last], r.Val.fields(), fields[last:])
}

// stallKey is the key of Event.StallMS.
const stallKey = "checkpoint_stall_ms"

// MarshalJSON writes the record as one JSON object with a fixed order of keys. Floats are the
// shortest decimals that read back to the same float64. Those that JSON can't represent are the
// strings "NaN", "Infinity" and "-Infinity", so that the metrics of a diverged run stay readable.
func (r Record) MarshalJSON() ([]byte, error) {
	if r.Time.IsZero() {
		return nil, fmt.Errorf("record of step %d has no time", r.Step)
	}
	return r.appendJSON(nil, true)
}

// Computed returns the record's JSON without its wall-clock fields. Two runs did the same
// computation bit for bit if and only if these strings are equal for all their training and
// validation records.
func (r Record) Computed() string {
	b, err := r.appendJSON(nil, false)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (r *Record) appendJSON(b []byte, clock bool) ([]byte, error) {
	fields := r.fields()
	if len(fields) == 0 {
		return nil, fmt.Errorf("record of step %d has no kind", r.Step)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	b = append(b, '{')
	for i, f := range fields {
		if f.clock && !clock {
			continue
		}
		if i > 0 {
			b = append(b, ',')
		}
		name, err := json.Marshal(f.key)
		if err != nil {
			return nil, err
		}
		b = append(append(b, name...), ':')
		var value any
		switch p := f.at(r).(type) {
		case *float64:
			value = jsonFloat(*p, f.clock)
		case *time.Time:
			value = p.UTC().Format(timeLayout)
		default:
			value = p
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("%s of step %d: %w", f.key, r.Step, err)
		}
		b = append(b, text...)
	}
	return append(b, '}'), nil
}

// timeLayout is RFC 3339 with a fixed number of decimals, so that lines align.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// Floats that JSON can't represent, spelled as in protobuf's JSON mapping.
var nonFinite = map[string]float64{
	"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1),
}

func jsonFloat(x float64, clock bool) any {
	switch {
	case math.IsNaN(x):
		return "NaN"
	case math.IsInf(x, 1):
		return "Infinity"
	case math.IsInf(x, -1):
		return "-Infinity"
	case clock && math.Abs(x) < 1e12: // above this, x*1000 has no three decimals to keep
		return math.Round(x*1000) / 1000
	}
	return x
}

// check verifies what must hold for a record both when it is written and when it is read.
func (r *Record) check() error {
	if r.Step < 0 {
		return fmt.Errorf("step is %d, want 0 or more", r.Step)
	}
	if r.Kind == KindEvent && r.Event.Name == "" {
		return errors.New("event has no name")
	}
	for i, at := range r.Val.Longer {
		if at.Times < 2 || i > 0 && at.Times <= r.Val.Longer[i-1].Times {
			return fmt.Errorf("validation on rows %d times as long as the training's, want 2 or more, rising", at.Times)
		}
	}
	for i, of := range r.Val.BySource {
		if of.Name == "" || i > 0 && of.Name <= r.Val.BySource[i-1].Name {
			return fmt.Errorf("validation of source %q, want rising names", of.Name)
		}
	}
	for i, source := range r.Val.Sources {
		if i > 0 && source.Name <= r.Val.Sources[i-1].Name {
			return fmt.Errorf("source %q follows %q, want rising names", source.Name, r.Val.Sources[i-1].Name)
		}
	}
	return nil
}

// UnmarshalJSON reads what MarshalJSON writes: every key of the record's kind is required, and no
// other is allowed.
func (r *Record) UnmarshalJSON(b []byte) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(b, &values); err != nil {
		return err
	}
	var got Record
	switch {
	case values["loss"] != nil:
		got.Kind = KindTrain
	case values[lossKey] != nil:
		got.Kind, got.Val.Sources = KindVal, sourcesIn(values)
		got.Val.Longer, got.Val.BySource = validationsIn(values)
	case values["event"] != nil:
		got.Kind = KindEvent
		if values[stallKey] != nil {
			got.Event.StallMS = new(float64)
		}
	default:
		return errors.New(`no "loss", "val_loss" or "event": not a training step, validation or event`)
	}
	for _, f := range got.fields() {
		text, ok := values[f.key]
		if !ok {
			return fmt.Errorf("no %q", f.key)
		}
		if err := decode(text, f.at(&got)); err != nil {
			return fmt.Errorf("%q: %w", f.key, err)
		}
		delete(values, f.key)
	}
	if len(values) > 0 {
		return fmt.Errorf("unknown key %q", slices.Min(slices.Collect(maps.Keys(values))))
	}
	if err := got.check(); err != nil {
		return err
	}
	*r = got
	return nil
}

func decode(text json.RawMessage, into any) error {
	if string(text) == "null" { // json.Unmarshal would leave the value unchanged
		return errors.New("is null")
	}
	switch p := into.(type) {
	case *float64:
		if text[0] != '"' {
			return json.Unmarshal(text, p)
		}
		var name string
		if err := json.Unmarshal(text, &name); err != nil {
			return err
		}
		x, ok := nonFinite[name]
		if !ok {
			return fmt.Errorf("%q is not a number", name)
		}
		*p = x
		return nil
	case *time.Time:
		if err := json.Unmarshal(text, p); err != nil {
			return err
		}
		*p = p.UTC()
		return nil
	default:
		return json.Unmarshal(text, p)
	}
}
