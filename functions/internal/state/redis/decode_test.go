package redis

import (
	"testing"
	"time"

	"github.com/apss-sensor/apss/functions/internal/state"
	"github.com/apss-sensor/apss/functions/internal/state/swap"
)

// FuzzDecode: whatever is in the database is a record or an error, and a record is written as it was read.
func FuzzDecode(f *testing.F) {
	f.Add("")
	f.Add("theirs")
	f.Add("\x01 a header that is too sho")
	f.Add(encode(swap.Entry{Mark: 1, Record: state.Record{Value: []byte{}}}))
	f.Add(encode(swap.Entry{Mark: 1 << 63, Record: state.Record{Value: []byte("v"), Due: time.Unix(1, 0), Expires: time.Unix(1<<40, 0)}}))
	f.Fuzz(func(t *testing.T, text string) {
		e, err := decode(text)
		if err != nil {
			return
		}
		if e.Value == nil || encode(e) != text {
			t.Errorf("%q is read as %+v and written as %q", text, e, encode(e))
		}
	})
}
