package serve

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

// FuzzDecodeObject: any body is rejected as the client's fault or means what encoding/json decodes
// from it.
func FuzzDecodeObject(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `{"prompt": "a😀\n", "max_tokens": 3, "temperature": 0.5, "stop": ["x"], "stream": true}`,
		`{"prompt": "\ud83d\ude00", "logprobs": null, "echo": false, "stream_options": {"include_usage": true}}`,
		`{"prompt": [[1, 2], [3]], "n": 2, "logit_bias": {}}`, `{"n": 1e2}`, `{"prompt": "\u12"}`, `{"a": {"b": [`, `{"n": 1} x`,
		`{"prompt": "\\ud83d"}`, `{"\u006e": 2}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got, want completionRequest
		if err := decodeObject(body, &got); err != nil {
			var e *apiError
			if !errors.As(err, &e) || e.status != 400 {
				t.Errorf("%q: %v", body, err)
			}
			return
		}
		if err := json.Unmarshal(body, &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v (%v)", body, got, want, err)
		}
	})
}
