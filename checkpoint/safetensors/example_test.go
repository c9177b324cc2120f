package safetensors_test

import (
	"bytes"
	"fmt"

	"github.com/sambatrain/sambatrain/checkpoint/safetensors"
)

func Example() {
	var file bytes.Buffer
	w, err := safetensors.NewWriter(&file, []safetensors.Entry{{Name: "weight", DType: safetensors.F32, Shape: []int{2, 3}}}, map[string]string{"format": "pt"})
	if err == nil {
		err = w.WriteFloat32("weight", []float32{1, 2, 3, 4, 5, 6})
	}
	if err == nil {
		err = w.Finish()
	}
	if err != nil {
		fmt.Println(err)
		return
	}

	f, err := safetensors.NewFile(bytes.NewReader(file.Bytes()), int64(file.Len()), "weights")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range f.Entries() {
		values := make([]float32, e.Bytes()/4)
		if err := f.ReadFloat32(e.Name, values); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(e.Name, e.DType, e.Shape, values)
	}
	// Output: weight F32 [2 3] [1 2 3 4 5 6]
}
