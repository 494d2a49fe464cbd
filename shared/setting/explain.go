package setting

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/apss-sensor/apss/shared/secret"
)

// explain says why value is no t and how a t with those options of its tag is written. Why is the decoder's word.
func explain(t reflect.Type, options, value, why string) error {
	if holdsSecret(t, nil) {
		return errors.New("is not accepted (its value is a secret and not shown)")
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	list := ""
	if t.Kind() == reflect.Slice && !decodesItself(t) {
		t, list = t.Elem(), "a list in which each is "
	}
	if kind := kindOf(t); kind != "" {
		return fmt.Errorf("%s is not %s%s", quote(value), list, kind)
	}
	if t.Kind() == reflect.Map && !decodesItself(t) {
		pair := "name" + option(options, "separator", ":") + "value"
		return fmt.Errorf("%s is not a list of names and values; write it like %q (%s)", quote(value), pair+option(options, "delimiter", ",")+pair, why)
	}
	return fmt.Errorf("%s is not accepted: %s", quote(value), why)
}

// option returns the value of an option in a tag of go-envconfig, or what it is by default.
func option(options, name, byDefault string) string {
	if _, rest, ok := strings.Cut(options, name+"="); ok {
		value, _, _ := strings.Cut(rest, ",")
		return value
	}
	return byDefault
}

// kindOf names what a t must be, with an example; it is empty for a type that decodes itself and for a composite one.
func kindOf(t reflect.Type) string {
	if t == reflect.TypeFor[time.Duration]() {
		return `a duration; write it like "500ms"`
	}
	if decodesItself(t) {
		return ""
	}
	switch t.Kind() {
	case reflect.Bool:
		return `a switch; write "true" or "false"`
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		bits := t.Bits()
		return fmt.Sprintf("a whole number from %d to %d", int64(-1)<<(bits-1), int64(1)<<(bits-1)-1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
	case reflect.Float32, reflect.Float64:
		return `a number; write it like "0.5"`
	default:
		return ""
	}
}

// decodesItself reports whether envconfig leaves the decoding to t.
func decodesItself(t reflect.Type) bool {
	switch reflect.New(t).Interface().(type) {
	case envconfig.DecoderCtx, envconfig.Decoder, encoding.TextUnmarshaler, json.Unmarshaler, encoding.BinaryUnmarshaler:
		return true
	}
	return false
}

// quote quotes value and cuts it to what fits a line of a terminal.
func quote(value string) string {
	const most = 80
	if r := []rune(value); len(r) > most {
		value = string(r[:most]) + "…"
	}
	return strconv.Quote(value)
}

// holdsSecret reports whether a secret.Value can be somewhere in a t.
func holdsSecret(t reflect.Type, above []reflect.Type) bool {
	if t == reflect.TypeFor[secret.Value]() {
		return true
	}
	for _, a := range above {
		if a == t {
			return false
		}
	}
	above = append(above, t)
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return holdsSecret(t.Elem(), above)
	case reflect.Map:
		return holdsSecret(t.Key(), above) || holdsSecret(t.Elem(), above)
	case reflect.Struct:
		for f := range t.Fields() {
			if holdsSecret(f.Type, above) {
				return true
			}
		}
	default:
	}
	return false
}

// Nearest returns the one of known that key is most probably a misspelling of, or "" when none is near.
func Nearest(key string, known []string) string {
	best, at := "", max(2, len(key)/4)+1
	for _, k := range known {
		if d := distance(key, k); d < at {
			best, at = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that lead from a to b (optimal
// string alignment).
func distance(a, b string) int {
	a, b = strings.ToUpper(a), strings.ToUpper(b)
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before, last, row = last, row, before
		row[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(last[j]+change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
