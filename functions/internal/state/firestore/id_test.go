package firestore

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/apss-sensor/apss/functions/internal/state"
)

// FuzzID: every key has an id of its own that Firestore takes.
func FuzzID(f *testing.F) {
	for _, key := range []string{"k", ".", "..", "__k__", "a/b", "ünïcode 世界", "\xff\x00", "%2F", strings.Repeat("\xff", state.MaxKey)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if key == "" || len(key) > state.MaxKey {
			return
		}
		id := idOf(key)
		if back, err := keyOf(id); err != nil || back != key {
			t.Errorf("%q became %q and then %q, %v", key, id, back, err)
		}
		// https://cloud.google.com/firestore/quotas#collections_documents_and_fields
		if len(id) > 1500 || strings.Contains(id, "/") || !utf8.ValidString(id) || strings.HasPrefix(id, "__") || strings.Trim(id, ".") == "" {
			t.Errorf("%q became %q, which is no document's id", key, id)
		}
	})
}
