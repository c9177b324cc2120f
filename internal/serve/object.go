package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sambatrain/sambatrain/recipes"
)

// decodeObject reads a JSON object into the struct that q points to, by the names in its tags only:
// unknown and duplicate keys are errors.
func decodeObject(body []byte, q any) error {
	if err := checkText(body); err != nil {
		return err
	}
	fields := map[string]any{}
	v := reflect.ValueOf(q).Elem()
	for i := range v.NumField() {
		if key := v.Type().Field(i).Tag.Get("json"); key != "" {
			fields[key] = v.Field(i).Addr().Interface()
		}
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return wrong("the request must be a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return broken(err)
		}
		key := t.(string) // keys of an object are strings
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return broken(err)
		}
		field, ok := fields[key]
		switch {
		case !ok:
			return bad(key, "this server has no such key%s", nearest(key, fields))
		case seen[key]:
			return bad(key, "comes twice")
		}
		seen[key] = true
		if err := decodeValue(key, value, field); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return broken(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return wrong("the request has text after its JSON")
	}
	return nil
}

// nearest suggests another key with a similar spelling, if there is one.
func nearest(key string, fields map[string]any) string {
	if near := recipes.Nearest(key, slices.Sorted(maps.Keys(fields))); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

func wrong(format string, args ...any) error {
	return &apiError{status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

// broken returns the error for a request that is not JSON.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return wrong("the request is not JSON: %v", err)
}

func decodeValue(key string, value json.RawMessage, field any) error {
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	err := d.Decode(field)
	if err == nil {
		return nil
	}
	if shown := []rune(string(value)); len(shown) > 40 {
		value = json.RawMessage(string(shown[:40]) + "...")
	}
	return bad(key, "must be %s, is %s", wanted(reflect.TypeOf(field).Elem()), value)
}

// wanted says what a key of a type accepts.
func wanted(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number of 64 bits"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	}
	return "an object with no other keys than " + t.Field(0).Tag.Get("json")
}

// checkText rejects what is not text, which encoding/json would read as U+FFFD: bytes that are not
// UTF-8, and half of a surrogate pair, as in "\ud83d".
func checkText(body []byte) error {
	if !utf8.Valid(body) {
		return wrong("the request is not UTF-8; bytes that are no characters can be sent as token ids")
	}
	unit := func(at int) rune {
		if at+6 > len(body) || body[at] != '\\' || body[at+1] != 'u' {
			return 0
		}
		u, _ := strconv.ParseUint(string(body[at+2:at+6]), 16, 16) // errors are reported by the JSON decoder
		return rune(u)
	}
	for at := 0; at < len(body); at++ {
		if body[at] != '\\' {
			continue
		}
		switch u := unit(at); {
		case !utf16.IsSurrogate(u):
			at++ // the escaped character
		case utf16.DecodeRune(u, unit(at+6)) == utf8.RuneError:
			return wrong(`the request has half of a character, \u%04x; surrogates come in pairs`, u)
		default:
			at += 11
		}
	}
	return nil
}

// listOf reads a list. A null in it, which encoding/json would take for a zero, is an error.
func listOf[T any](value json.RawMessage) ([]T, error) {
	var all []*T
	if err := json.Unmarshal(value, &all); err != nil {
		return nil, err
	}
	if slices.Contains(all, nil) {
		return nil, errors.New("a null in a list")
	}
	list := make([]T, len(all))
	for i, x := range all {
		list[i] = *x
	}
	return list, nil
}
