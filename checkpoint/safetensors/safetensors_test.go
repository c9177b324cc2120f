package safetensors

import (
	"bytes"
	"encoding/binary"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// file builds a file's bytes from a header and a data section.
func file(header, data string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func open(b []byte) (*File, error) {
	return NewFile(bytes.NewReader(b), int64(len(b)), "x.safetensors")
}

// oddFloats are bit patterns that arithmetic or a conversion would not preserve.
var oddFloats = []float32{
	math.Float32frombits(0x7fc00001), // a quiet NaN with a payload
	math.Float32frombits(0x7f800001), // a signalling NaN
	math.Float32frombits(0xffffffff),
	float32(math.Copysign(0, -1)),
	math.SmallestNonzeroFloat32,
	float32(math.Inf(-1)),
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

func TestRoundTrip(t *testing.T) {
	entries := []Entry{
		{Name: "z", DType: F32, Shape: []int{2, 3}},
		{Name: "bytes", DType: U8, Shape: []int{3}},
		{Name: "half", DType: BF16, Shape: []int{1}},
		{Name: "ids <&>\u2028\"", DType: I32, Shape: []int{2}},
		{Name: "wide", DType: F64, Shape: []int{1, 1}},
		{Name: "scalar", DType: F32},
		{Name: "empty", DType: F32, Shape: []int{0, 7}},
		{Name: "", DType: U8, Shape: []int{0}},
	}
	metadata := map[string]string{"format": "pt", "note": "a\n\u00e9"}
	ids := []int32{math.MinInt32, 7}

	path := filepath.Join(t.TempDir(), "x.safetensors")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(out, entries, metadata)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range w.Entries() {
		switch e.Name {
		case "z": // in two pieces
			err = w.WriteFloat32("z", oddFloats[:4])
			if err == nil {
				err = w.WriteFloat32("z", oddFloats[4:])
			}
		case "scalar":
			err = w.WriteFloat32("scalar", []float32{2})
		case "ids <&>\u2028\"":
			err = w.WriteInt32(e.Name, ids)
		default:
			err = w.Write(e.Name, bytes.Repeat([]byte{9}, int(e.Bytes())))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}

	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.data%8 != 0 {
		t.Errorf("the data starts at byte %d, which is not aligned to 8", f.data)
	}
	if diff := cmp.Diff(metadata, f.Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	for _, want := range entries {
		got, ok := f.Entry(want.Name)
		if !ok || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) {
			t.Errorf("entry %q is %v (%v), want %v", want.Name, got, ok, want)
		}
		if got.begin%int64(max(1, got.DType.Size())) != 0 {
			t.Errorf("tensor %q starts at byte %d, not aligned to %s", got.Name, got.begin, got.DType)
		}
	}
	floats := make([]float32, 6)
	if err := f.ReadFloat32("z", floats); err != nil {
		t.Fatal(err)
	}
	for i := range floats {
		if got, want := math.Float32bits(floats[i]), math.Float32bits(oddFloats[i]); got != want {
			t.Errorf("z[%d] has bits %08x, want %08x", i, got, want)
		}
	}
	gotIDs := make([]int32, 2)
	if err := f.ReadInt32("ids <&>\u2028\"", gotIDs); err != nil || !slices.Equal(gotIDs, ids) {
		t.Errorf("ids are %v (%v), want %v", gotIDs, err, ids)
	}
	raw, err := f.Raw("bytes")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(raw); err != nil || !bytes.Equal(b, []byte{9, 9, 9}) {
		t.Errorf("raw bytes are %v (%v)", b, err)
	}
	for from := range 6 {
		part := make([]float32, min(2, 6-from))
		if err := f.ReadFloat32Range("z", from, part); err != nil || !slices.EqualFunc(part, floats[from:from+len(part)], sameBits) {
			t.Errorf("elements from %d on are %x (%v)", from, part, err)
		}
	}
	if err := f.ReadFloat32("empty", nil); err != nil {
		t.Error(err)
	}
}

// TestLayout pins the bytes, so that the writer and the reader cannot be wrong together.
func TestLayout(t *testing.T) {
	var b bytes.Buffer
	w, err := NewWriter(&b, []Entry{{Name: "b", DType: I32, Shape: []int{1}}, {Name: "a", DType: F32, Shape: []int{1, 2}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteFloat32("a", []float32{1, -2}); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteInt32("b", []int32{258}); err != nil {
		t.Fatal(err)
	}
	header := `{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}}`
	header += strings.Repeat(" ", 7-(len(header)+7)%8)
	want := file(header, "\x00\x00\x80\x3f\x00\x00\x00\xc0\x02\x01\x00\x00")
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("got %q\nwant %q", b.Bytes(), want)
	}
}

// TestOtherByteOrder simulates a machine of the other byte order: there the bytes of a number are
// reversed in memory compared with the file.
func TestOtherByteOrder(t *testing.T) {
	littleEndian = !littleEndian
	defer func() { littleEndian = !littleEndian }()
	data := []int32{0x01020304, -2}
	var b bytes.Buffer
	w, err := NewWriter(&b, []Entry{{Name: "a", DType: I32, Shape: []int{2}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteInt32("a", data); err != nil {
		t.Fatal(err)
	}
	if want := []int32{0x01020304, -2}; !slices.Equal(data, want) {
		t.Errorf("the caller's data became %x", data)
	}
	f, err := open(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	raw, got := make([]byte, 8), make([]int32, 2)
	if err := f.Read("a", raw); err != nil {
		t.Fatal(err)
	}
	want := bytesOf(data)
	slices.Reverse(want[:4])
	slices.Reverse(want[4:])
	if !bytes.Equal(raw, want) {
		t.Errorf("the file has % x, want % x", raw, want)
	}
	slices.Reverse(want[:4])
	slices.Reverse(want[4:])
	if err := f.ReadInt32("a", got); err != nil || !slices.Equal(got, data) {
		t.Errorf("read %x (%v), want %x", got, err, data)
	}
}

func TestOpenRefuses(t *testing.T) {
	const a = `"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}`
	tensor := func(dtype, shape, offsets string) string {
		return `{"a":{"dtype":` + dtype + `,"shape":` + shape + `,"data_offsets":` + offsets + `}}`
	}
	for name, c := range map[string]struct {
		bytes []byte
		want  string
	}{
		"empty file":         {nil, "too short"},
		"short prefix":       {[]byte{2, 0, 0}, "too short"},
		"header past end":    {file(`{}`, "")[:9], "truncated"},
		"header length huge": {append(bytes.Repeat([]byte{0xff}, 8), '{', '}'), "format's limit"},
		"header no object":   {file(` {}`, ""), "start with '{'"},
		"header empty":       {file(``, ""), "start with '{'"},
		"not JSON":           {file(`{"a":}`, ""), "not valid JSON"},
		"two documents":      {file(`{}{}`, ""), "not valid JSON"},
		"not UTF-8":          {file("{\"\xff\":1}", ""), "UTF-8"},
		"duplicate tensor":   {file(`{`+a+`,`+a+`}`, "xx"), `key "a" appears twice`},
		"duplicate by escape": {file(`{`+a+`,`+strings.Replace(a, "a", `\u0061`, 1)+`}`, "xx"),
			`key "a" appears twice`},
		"duplicate metadata": {file(`{"__metadata__":{"k":"1","k":"2"}}`, ""), `key "k" appears twice`},
		"metadata number":    {file(`{"__metadata__":{"k":1}}`, ""), "want a string"},
		"metadata twice":     {file(`{"__metadata__":{},"__metadata__":{}}`, ""), "appears twice"},
		"tensor not object":  {file(`{"a":[]}`, ""), `tensor "a": want "{"`},
		"unknown dtype":      {file(tensor(`"F31"`, `[1]`, `[0,4]`), "xxxx"), `tensor "a": unknown dtype "F31"`},
		"dtype number":       {file(tensor(`3`, `[1]`, `[0,4]`), "xxxx"), "dtype: want a string"},
		"negative dimension": {file(tensor(`"U8"`, `[-1]`, `[0,0]`), ""), "shape: want an integer"},
		"fraction":           {file(tensor(`"U8"`, `[1.0]`, `[0,1]`), "x"), "shape: want an integer"},
		"dimension 2^64":     {file(tensor(`"U8"`, `[18446744073709551616]`, `[0,0]`), ""), "shape: want an integer"},
		"shape overflow":     {file(tensor(`"F32"`, `[4294967296,4294967296]`, `[0,0]`), ""), "overflows"},
		"shape overflow to negative": {file(tensor(`"F64"`, `[2147483648,536870912]`, `[0,0]`), ""),
			"overflows"},
		"empty but overflows": {file(tensor(`"F32"`, `[0,4294967296,4294967296]`, `[0,0]`), ""),
			"overflows"},
		"size mismatch":   {file(tensor(`"F32"`, `[2]`, `[0,4]`), "xxxx"), "takes 8 bytes"},
		"offsets swapped": {file(tensor(`"U8"`, `[2]`, `[2,0]`), "xx"), "begin <= end"},
		"three offsets":   {file(tensor(`"U8"`, `[2]`, `[0,1,2]`), "xx"), "begin <= end"},
		"missing key":     {file(`{"a":{"dtype":"U8","shape":[0]}}`, ""), "must all be given"},
		"unknown key":     {file(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}`, ""), `unknown key "x"`},
		"duplicate field": {file(`{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, ""), "appears twice"},
		"overlap": {file(`{`+a+`,"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, "xxx"),
			`tensor "b": data [1, 3) overlaps`},
		"hole": {file(`{`+a+`,"b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}`, "xxxx"),
			`tensor "b": data [3, 4) leaves a hole`},
		"hole at the start": {file(tensor(`"U8"`, `[1]`, `[1,2]`), "xx"), "leaves a hole"},
		"data truncated":    {file(`{`+a+`}`, "x"), "truncated"},
		"trailing bytes":    {file(`{`+a+`}`, "xxx"), "1 bytes after the last tensor"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(c.bytes)
			if err == nil {
				t.Fatal("opened without an error")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "x.safetensors: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %q, want one line starting with the file's name that says %q", err, c.want)
			}
		})
	}
}

func TestOpenAccepts(t *testing.T) {
	for name, b := range map[string][]byte{
		"no tensors":        file(`{}`, ""),
		"padding":           file(`{}      `, ""),
		"empty metadata":    file(`{"__metadata__":{}}`, ""),
		"not in data order": file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, "xy"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := open(b); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	f, err := open(file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"i":{"dtype":"I32","shape":[1],"data_offsets":[4,8]}}`, "xxxxyyyy"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"unknown tensor": {f.ReadFloat32("b", nil), `no tensor "b"`},
		"too short":      {f.ReadFloat32("a", nil), `tensor "a": shape [1] of F32 takes 4 bytes, the buffer has 0`},
		"too long":       {f.ReadFloat32("a", make([]float32, 2)), `the buffer has 8`},
		"wrong dtype":    {f.ReadInt32("a", make([]int32, 1)), `dtype is F32, want I32`},
		"int as float":   {f.ReadFloat32("i", make([]float32, 1)), `dtype is I32, want F32`},
		"range of none":  {f.ReadFloat32Range("b", 0, nil), `no tensor "b"`},
		"range of ints":  {f.ReadFloat32Range("i", 0, make([]float32, 1)), `dtype is I32, want F32`},
		"before":         {f.ReadFloat32Range("a", -1, make([]float32, 1)), `tensor "a": shape [1] has no 1 elements from -1 on`},
		"behind":         {f.ReadFloat32Range("a", 1, make([]float32, 1)), `tensor "a": shape [1] has no 1 elements from 1 on`},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: error is %v, want %q", name, c.err, c.want)
		}
	}
}

// TestShrunk covers a file that is truncated after it was opened.
func TestShrunk(t *testing.T) {
	b := file(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, "xxxx")
	f, err := NewFile(bytes.NewReader(b[:len(b)-1]), int64(len(b)), "x")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Read("a", make([]byte, 4)); err == nil || !strings.Contains(err.Error(), `x: tensor "a": unexpected EOF`) {
		t.Errorf("error is %v", err)
	}
}

func TestWriterRefuses(t *testing.T) {
	u8 := func(name string, n int) Entry { return Entry{Name: name, DType: U8, Shape: []int{n}} }
	for name, c := range map[string]struct {
		entries []Entry
		write   func(*Writer) error
		want    string
	}{
		"duplicate":     {[]Entry{u8("a", 1), u8("a", 1)}, nil, `tensor "a": given twice`},
		"reserved name": {[]Entry{u8("__metadata__", 1)}, nil, "reserved"},
		"name not text": {[]Entry{u8("\xff", 1)}, nil, "UTF-8"},
		"unknown dtype": {[]Entry{{Name: "a", DType: "F31"}}, nil, "unknown dtype"},
		"negative":      {[]Entry{u8("a", -1)}, nil, "negative"},
		"size overflow": {[]Entry{{Name: "a", DType: U8, Shape: []int{math.MaxInt}}, {Name: "b", DType: U8, Shape: []int{math.MaxInt}}, {Name: "c", DType: U8, Shape: []int{math.MaxInt}}, {Name: "d", DType: F64, Shape: []int{math.MaxInt}}}, nil, "overflows"},
		"out of order":  {[]Entry{u8("a", 1), u8("b", 1)}, func(w *Writer) error { return w.Write("b", []byte{1}) }, `tensor "b": written before "a" is full (0 of 1 bytes)`},
		"too much":      {[]Entry{u8("a", 1)}, func(w *Writer) error { return w.Write("a", []byte{1, 2}) }, "2 bytes where 1"},
		"unknown":       {nil, func(w *Writer) error { return w.Write("a", nil) }, "not expected"},
		"wrong dtype":   {[]Entry{u8("a", 4)}, func(w *Writer) error { return w.WriteFloat32("a", []float32{1}) }, "F32 data for a tensor of dtype U8"},
		"incomplete":    {[]Entry{u8("a", 0), u8("b", 2)}, func(w *Writer) error { w.Write("b", []byte{1}); return w.Finish() }, `tensor "b": only 1 of 2`},
		"never started": {[]Entry{u8("a", 1), u8("b", 2)}, func(w *Writer) error { w.Write("a", []byte{1}); return w.Finish() }, `tensor "b": only 0 of 2`},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := NewWriter(io.Discard, c.entries, nil)
			if err == nil && c.write != nil {
				err = c.write(w)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

func TestOpenNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "none.safetensors")} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("error for %s is %v", path, err)
		}
	}
}
