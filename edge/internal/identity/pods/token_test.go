package pods

import (
	"errors"
	"testing"
	"time"
)

func TestTokenFile(t *testing.T) {
	text, fault := " secret\n", error(nil)
	source := &tokenFile{path: "/token", read: func(path string) ([]byte, error) {
		if path != "/token" {
			t.Errorf("got a read of %s", path)
		}
		return []byte(text), fault
	}}
	token, err := source.Token()
	if err != nil || token.AccessToken != "secret" || time.Until(token.Expiry) > tokenTTL {
		t.Errorf("got %v, %v; want the token, for a minute at most", token, err)
	}
	text = "\n"
	if _, err = source.Token(); err == nil {
		t.Error("an empty file is taken for a token")
	}
	fault = errors.New("gone")
	if _, err = source.Token(); !errors.Is(err, fault) {
		t.Errorf("got %v, want what the read said", err)
	}
}
