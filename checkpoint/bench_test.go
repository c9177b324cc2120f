package checkpoint

import "testing"

// benchTensors is a model of 16 M parameters in matrices of 1 M, with its moments: 192 MiB.
func benchTensors() (model, optimizer []Tensor) {
	data := make([]float32, 1<<20)
	for i := range data {
		data[i] = float32(i)
	}
	for i := range 16 {
		name := "w" + string(rune('a'+i))
		model = append(model, Tensor{Name: name, Shape: []int{1024, 1024}, Data: data})
		for _, prefix := range []string{ExpAvgPrefix, ExpAvgSqPrefix} {
			optimizer = append(optimizer, Tensor{Name: prefix + name, Shape: []int{1024, 1024}, Data: data})
		}
	}
	return model, optimizer
}

// BenchmarkSave: with and without disk syncs; without them only hashing and copying into the page
// cache remain.
func BenchmarkSave(b *testing.B) {
	for name, fs := range map[string]fileSystem{"disk": osFS{}, "cache": noSyncFS{}} {
		b.Run(name, func(b *testing.B) {
			r, err := Lock(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer r.Unlock()
			r.fs = fs
			model, optimizer := benchTensors()
			for b.Loop() {
				info, err := r.Save(state(1), model, optimizer)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(info.Bytes)
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	r, err := Lock(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Unlock()
	model, optimizer := benchTensors()
	info, err := r.Save(state(1), model, optimizer)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Bytes)
	for b.Loop() {
		if err := Verify(info.Dir); err != nil {
			b.Fatal(err)
		}
	}
}
