package runlog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Worked out by hand from the format definitions: a validation of step 300 (varint ac 02) at 1.5 s.
func TestScalarRecordGolden(t *testing.T) {
	r := ValRecord(300, time.Unix(1, 5e8), Val{Loss: 2.5, BitsPerByte: 0.5})
	want := strings.Join([]string{
		"39 00 00 00 00 00 00 00", // length 57
		"8b 07 37 f1",             // masked CRC-32C of it
		"09 00 00 00 00 00 00 f8 3f",
		"10 ac 02",
		"2a 2b", // summary of 43 bytes
		"0a 0f 0a 08 76 61 6c 5f 6c 6f 73 73 15 00 00 20 40",
		"0a 18 0a 11 76 61 6c 5f 62 69 74 73 5f 70 65 72 5f 62 79 74 65 15 00 00 00 3f",
		"79 f9 60 42", // masked CRC-32C of the 57 bytes
	}, "")
	want = strings.ReplaceAll(want, " ", "")
	if got := hex.EncodeToString(tfRecord(scalarEvent(r))); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// bitwiseCRC computes CRC-32C from its definition, with the reflected polynomial 0x82f63b78.
func bitwiseCRC(data []byte) uint32 {
	crc := ^uint32(0)
	for _, b := range data {
		crc ^= uint32(b)
		for range 8 {
			crc = crc>>1 ^ 0x82f63b78*(crc&1)
		}
	}
	return ^crc
}

func TestMaskedCRC(t *testing.T) {
	if got := bitwiseCRC([]byte("123456789")); got != 0xe3069283 {
		t.Fatalf("check value %08x, want e3069283", got)
	}
	for _, data := range []string{"", "123456789", strings.Repeat("\x00", 32), "loss"} {
		crc := bitwiseCRC([]byte(data))
		if got, want := maskedCRC([]byte(data)), (crc>>15|crc<<17)+0xa282ead8; got != want {
			t.Errorf("%q: %08x, want %08x", data, got, want)
		}
	}
}

// message is a protobuf message as a list of its fields, decoded without the library that encodes
// it.
type message []protoField

type protoField struct {
	number int
	value  any // uint64 (varint), uint32 (fixed32), float64 (fixed64) or []byte
}

func decodeMessage(b []byte) (m message, err error) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return nil, fmt.Errorf("bad tag in % x", b)
		}
		b = b[n:]
		f := protoField{number: int(tag >> 3)}
		switch tag & 7 {
		case 0:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return nil, fmt.Errorf("bad varint in % x", b)
			}
			f.value, b = v, b[n:]
		case 1:
			f.value, b = math.Float64frombits(binary.LittleEndian.Uint64(b)), b[8:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || uint64(len(b)-n) < size {
				return nil, fmt.Errorf("bad length in % x", b)
			}
			f.value, b = b[n:n+int(size)], b[n+int(size):]
		case 5:
			f.value, b = binary.LittleEndian.Uint32(b), b[4:]
		default:
			return nil, fmt.Errorf("wire type %d", tag&7)
		}
		m = append(m, f)
	}
	return m, nil
}

// describeEvents returns each event of a file as a line, "wall step what".
func describeEvents(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	must := func(m message, err error) message {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	mask := func(crc uint32) uint32 { return (crc>>15 | crc<<17) + 0xa282ead8 }
	var events []string
	for len(b) > 0 {
		size := binary.LittleEndian.Uint64(b)
		if got := binary.LittleEndian.Uint32(b[8:]); got != mask(bitwiseCRC(b[:8])) {
			t.Fatalf("length's checksum %08x", got)
		}
		data := b[12 : 12+size]
		if got := binary.LittleEndian.Uint32(b[12+size:]); got != mask(bitwiseCRC(data)) {
			t.Fatalf("data's checksum %08x", got)
		}
		b = b[16+size:]

		var text []string
		for _, f := range must(decodeMessage(data)) {
			switch f.number {
			case 1, 2:
				text = append(text, fmt.Sprint(f.value))
			case 3:
				text = append(text, fmt.Sprintf("version %s", f.value))
			case 5:
				for _, v := range must(decodeMessage(f.value.([]byte))) {
					value := must(decodeMessage(v.value.([]byte)))
					if v.number != 1 || len(value) != 2 || value[0].number != 1 || value[1].number != 2 {
						t.Fatalf("not a tag and a simple_value: %v", value)
					}
					text = append(text, fmt.Sprintf("%s=%v", value[0].value, math.Float32frombits(value[1].value.(uint32))))
				}
			case 7:
				text = append(text, fmt.Sprint("session ", must(decodeMessage(f.value.([]byte)))))
			default:
				t.Fatalf("field %d of Event", f.number)
			}
		}
		events = append(events, strings.Join(text, " "))
	}
	return events
}

func TestEvents(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1700000000, 250e6)
	write := func(from int, records ...Record) {
		e, err := createEvents(dir, from, now, "box")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if err := e.Append(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	step := sampleTrain(12)
	step.Time = now
	write(1, step, EventRecord(12, now, EventCheckpoint, ""), ValRecord(12, now, Val{Loss: math.Inf(1), BitsPerByte: 3.5}))
	write(13) // resumed within the same second

	for name, want := range map[string][]string{
		"events.out.tfevents.1700000000.box": {
			"1.70000000025e+09 0 version brain.Event:2",
			"1.70000000025e+09 1 session [{1 1}]",
			"1.70000000025e+09 12 loss=2.3145 bits_per_byte=3.3391 lr=0.00039 grad_norm=0.9125 tokens_per_s=12345.679 step_ms=331.777 data_wait_ms=0.25",
			"1.70000000025e+09 12 val_loss=+Inf val_bits_per_byte=3.5",
		},
		"events.out.tfevents.1700000000.box.1": {
			"1.70000000025e+09 0 version brain.Event:2",
			"1.70000000025e+09 13 session [{1 1}]",
		},
	} {
		if got := describeEvents(t, filepath.Join(dir, name)); !slices.Equal(got, want) {
			t.Errorf("%s holds\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

func TestCreateEventsName(t *testing.T) {
	dir := t.TempDir()
	e, err := CreateEvents(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.[0-9]*.?*")); err != nil || len(found) != 1 {
		t.Errorf("found %v, error %v", found, err)
	}
	if _, err := CreateEvents(filepath.Join(dir, "missing"), 1); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a missing folder: error %v", err)
	}
}
