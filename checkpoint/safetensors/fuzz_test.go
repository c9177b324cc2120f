package safetensors

import (
	"bytes"
	"testing"
)

// FuzzSafetensors: no input makes opening panic, and a file that opens can be read completely and
// written again as an equal one.
func FuzzSafetensors(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := open(b)
		if err != nil {
			return
		}
		var out bytes.Buffer
		w, err := NewWriter(&out, in.Entries(), in.Metadata())
		if err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		for _, e := range w.Entries() {
			data := make([]byte, e.Bytes())
			if err := in.Read(e.Name, data); err != nil {
				t.Fatal(err)
			}
			if err := w.Write(e.Name, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		again, err := open(out.Bytes())
		if err != nil {
			t.Fatalf("cannot read what was written: %v", err)
		}
		if len(again.Entries()) != len(in.Entries()) {
			t.Fatalf("%d tensors became %d", len(in.Entries()), len(again.Entries()))
		}
		for _, e := range in.Entries() {
			a, b := make([]byte, e.Bytes()), make([]byte, e.Bytes())
			if err := in.Read(e.Name, a); err != nil {
				t.Fatal(err)
			}
			if err := again.Read(e.Name, b); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) {
				t.Fatalf("tensor %q changed", e.Name)
			}
		}
	})
}
