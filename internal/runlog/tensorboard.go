package runlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Events appends records to a TensorBoard event file: TFRecord frames that each hold one Event message.
// The scalars' tags are the keys of metrics.jsonl. It is not safe for concurrent use.
//
// Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and
// tensorflow/core/framework/summary.proto of TensorFlow.
type Events struct {
	out *appendFile
}

// CreateEvents starts a new event file events.out.tfevents.TIME.HOST in dir. A resumed run starts
// another file next to the earlier ones: TensorBoard reads them as one.
//
// from is the number of the first step that will be recorded. TensorBoard hides the contents of
// earlier files in the folder from that step on, since a resumed run repeats these steps.
func CreateEvents(dir string, from int) (*Events, error) {
	return createEvents(dir, from, time.Now(), hostName())
}

func createEvents(dir string, from int, now time.Time, host string) (*Events, error) {
	base := filepath.Join(dir, fmt.Sprintf("events.out.tfevents.%010d.%s", now.Unix(), host))
	path := base
	for i := 1; ; i++ {
		out, err := openAppend(path, os.O_CREATE|os.O_EXCL)
		if errors.Is(err, fs.ErrExist) { // stopped and resumed within a second
			path = fmt.Sprintf("%s.%d", base, i)
			continue
		}
		if err != nil {
			return nil, err
		}
		e := &Events{out: out}
		if err = e.append(versionEvent(now)); err == nil {
			err = e.append(startEvent(now, from))
		}
		if err != nil {
			return nil, errors.Join(err, out.close())
		}
		return e, nil
	}
}

// hostName returns the machine's name as a part of a file name. It only distinguishes files, so a
// machine that doesn't know its own name is called localhost.
func hostName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "localhost"
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:`, r) {
			return '_'
		}
		return r
	}, host)
}

// Append writes the scalars of a training step or a validation. Events have no scalars and are not
// written.
func (e *Events) Append(r Record) error {
	if r.Kind == KindEvent {
		return nil
	}
	return e.append(scalarEvent(r))
}

func (e *Events) append(event []byte) error { return e.out.append(tfRecord(event)) }

// Close syncs and closes the file.
func (e *Events) Close() error { return e.out.close() }

// Field numbers of the protobuf messages Event, Summary, Summary.Value and SessionLog.
const (
	eventWallTime    = 1 // double, seconds since 1970
	eventStep        = 2 // int64
	eventFileVersion = 3 // string
	eventSummary     = 5 // Summary
	eventSessionLog  = 7 // SessionLog

	summaryValue = 1 // repeated Value

	valueTag    = 1 // string
	valueSimple = 2 // float

	sessionStatus = 1 // enum
	statusStart   = 1
)

// versionEvent is the first record of every event file.
func versionEvent(at time.Time) []byte {
	b := appendEventHead(nil, at, 0)
	b = protowire.AppendTag(b, eventFileVersion, protowire.BytesType)
	return protowire.AppendString(b, "brain.Event:2")
}

// startEvent says that a session starts, and that `step` is the first step it will record.
func startEvent(at time.Time, step int) []byte {
	session := protowire.AppendTag(nil, sessionStatus, protowire.VarintType)
	session = protowire.AppendVarint(session, statusStart)

	b := appendEventHead(nil, at, step)
	b = protowire.AppendTag(b, eventSessionLog, protowire.BytesType)
	return protowire.AppendBytes(b, session)
}

func scalarEvent(r Record) []byte {
	var summary, value []byte
	for _, f := range r.fields() {
		x, ok := f.at(&r).(*float64)
		if !ok {
			continue
		}
		value = protowire.AppendTag(value[:0], valueTag, protowire.BytesType)
		value = protowire.AppendString(value, f.key)
		value = protowire.AppendTag(value, valueSimple, protowire.Fixed32Type)
		value = protowire.AppendFixed32(value, math.Float32bits(float32(*x)))

		summary = protowire.AppendTag(summary, summaryValue, protowire.BytesType)
		summary = protowire.AppendBytes(summary, value)
	}
	b := appendEventHead(nil, r.Time, r.Step)
	b = protowire.AppendTag(b, eventSummary, protowire.BytesType)
	return protowire.AppendBytes(b, summary)
}

func appendEventHead(b []byte, at time.Time, step int) []byte {
	b = protowire.AppendTag(b, eventWallTime, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(float64(at.UnixMicro())/1e6))
	b = protowire.AppendTag(b, eventStep, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(step))
}

// tfRecord frames data: its length, the length's checksum, the data, the data's checksum, all
// little-endian.
func tfRecord(data []byte) []byte {
	b := make([]byte, 0, 8+4+len(data)+4)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, maskedCRC(b[:8]))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, maskedCRC(data))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is a CRC-32C, rotated and offset, so that checksums of data that itself contains
// checksums remain useful.
func maskedCRC(data []byte) uint32 {
	crc := crc32.Checksum(data, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}
