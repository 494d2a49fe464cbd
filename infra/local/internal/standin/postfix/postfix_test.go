package postfix

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRead: what a person reads of a message, and which one it belongs to. The server itself is proven in infra/local/faults.
func TestRead(t *testing.T) {
	for _, tt := range []struct{ name, text, title, body, answers string }{
		{"quoted-printable", "Message-ID: <a@b>\nSubject: [APSS] HIGH: x\nContent-Type: multipart/alternative; boundary=q\n\n" +
			"--q\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\nseen =\nonce =E2=9C=85\n--q--\n", "HIGH: x", "seen once ✅", ""},
		{"a reply", "Message-ID: <c@b>\nIn-Reply-To: <a@b>\nSubject: =?utf-8?q?Re:_=C3=A4?=\nContent-Type: multipart/alternative; boundary=q\n\n" +
			"--q\nContent-Type: text/plain\n\nagain\n--q--\n", "Re: ä", "again", "<a@b>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "1")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			m, answers, err := read(file)
			if err != nil || m.Title != tt.title || m.Text != tt.body || answers != tt.answers {
				t.Errorf("got %+v, %q, %v; want %+v", m, answers, err, tt)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "2")
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if m, _, err := read(file); err == nil {
		t.Errorf("got %+v, want an error", m)
	}
}
