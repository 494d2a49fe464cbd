package redact

import (
	"slices"
	"strings"
	"unicode"
)

// Words that make a key the name of a credential: as a word or as the end of one (PGPASSWORD), or as such a pair.
var (
	secretWords = []string{
		"password", "passwd", "passphrase", "secret", "token", "apikey", "secretkey", "accesskey", "privatekey",
		"credential", "credentials", "authorization",
	}
	secretWholeWords = []string{"pass", "pwd"}
	keyKinds         = []string{"api", "access", "private", "secret", "account", "auth", "signing", "encryption"}
	// A key that ends so names where a credential is or what it is like, not the credential.
	harmlessEnds = []string{
		"file", "path", "dir", "name", "id", "type", "url", "uri", "endpoint", "stdin", "ttl", "expiry", "expiration",
		"lifetime", "timeout", "length", "len", "size", "policy", "count", "limit", "mode", "format", "ref", "env", "arn",
		"version", "provider", "store", "manager", "class", "namespace", "prompt",
		"authentication", "min", "max", "days", "age", "warn", "required", "enabled", "retries",
	}
)

// sensitive reports whether key, a flag or the name of a variable, a field or a header, names a credential.
func sensitive(key string) bool {
	key = strings.TrimLeft(key, "-")
	if key == "PWD" || key == "OLDPWD" { // the working directory, environ(7)
		return false
	}
	words := splitWords(key)
	if len(words) == 0 || words[0] == "no" || words[0] == "nopasswd" || slices.Contains(harmlessEnds, words[len(words)-1]) {
		return false
	}
	for i, w := range words {
		if slices.Contains(secretWholeWords, w) ||
			slices.ContainsFunc(secretWords, func(end string) bool { return strings.HasSuffix(w, end) }) ||
			w == "key" && i > 0 && slices.Contains(keyKinds, words[i-1]) {
			return true
		}
	}
	return false
}

// splitWords splits at what is no letter and where camel case starts a new word; digits are dropped.
func splitWords(key string) []string {
	var words []string
	start, lowerBefore := 0, false
	add := func(end int) {
		if end > start {
			words = append(words, strings.ToLower(key[start:end]))
		}
		start = end
	}
	for i, c := range key {
		switch {
		case !unicode.IsLetter(c):
			add(i)
			start = i + len(string(c))
		case lowerBefore && unicode.IsUpper(c):
			add(i)
		}
		lowerBefore = unicode.IsLower(c)
	}
	add(len(key))
	return words
}

// shape is a credential that is known by how it looks. The prefix stays: it says what it was.
type shape struct {
	prefix string
	least  int    // bytes after the prefix
	extra  string // allowed in them besides letters, digits, "_" and "-"
}

// Prefixes as their makers document them: AWS IAM identifiers, GitHub's, GitLab's, Slack's, Stripe's, Google's, HashiCorp
// Vault's, npm's, SendGrid's and PyPI's token formats; JWT is RFC 7519 (a header that starts with {" in base64url).
var shapes = []shape{
	{"AKIA", 16, ""}, {"ASIA", 16, ""},
	{"ghp_", 20, ""}, {"gho_", 20, ""}, {"ghu_", 20, ""}, {"ghs_", 20, ""}, {"ghr_", 20, ""}, {"github_pat_", 20, ""},
	{"glpat-", 16, ""},
	{"xoxb-", 10, ""}, {"xoxa-", 10, ""}, {"xoxp-", 10, ""}, {"xoxr-", 10, ""}, {"xoxs-", 10, ""}, {"xapp-", 10, ""},
	{"hooks.slack.com/services/", 10, "/"},
	{"sk_live_", 10, ""}, {"rk_live_", 10, ""},
	{"AIza", 30, ""}, {"ya29.", 20, "."},
	{"hvs.", 20, ""}, {"npm_", 30, ""}, {"SG.", 20, "."}, {"pypi-", 20, ""},
	{"eyJ", 30, "."},
}

// appendTokens finds credentials by their shape, and private keys in PEM, RFC 7468.
func appendTokens(spans []part, s string) []part {
	spans = appendCrypt(spans, s)
	for _, sh := range shapes {
		for at := 0; ; {
			n := strings.Index(s[at:], sh.prefix)
			if n < 0 {
				break
			}
			start := at + n
			from := start + len(sh.prefix)
			at = from
			if start > 0 && isWordByte(s[start-1]) {
				continue
			}
			to := from
			for to < len(s) && (isWordByte(s[to]) || s[to] == '-' || strings.IndexByte(sh.extra, s[to]) >= 0) {
				to++
			}
			if to-from >= sh.least {
				spans = append(spans, part{from, to})
				at = to
			}
		}
	}
	const begin, end = "PRIVATE KEY-----", "-----END"
	for at := 0; ; {
		n := strings.Index(s[at:], begin)
		if n < 0 {
			return spans
		}
		from := at + n + len(begin)
		to := len(s)
		if n := strings.Index(s[from:], end); n >= 0 {
			to = from + n
			at = min(len(s), to+len(end)+len(" "+begin)) // past the footer, which holds the words of a header
		} else {
			at = len(s)
		}
		spans = append(spans, part{from, to})
	}
}

// appendCrypt finds password hashes of crypt(5): $id$, parameters and salt, and a hash of at least 22 bytes, MD5's.
func appendCrypt(spans []part, s string) []part {
	const leastHash = 22
	for at := 0; at < len(s); {
		n := strings.IndexByte(s[at:], '$')
		if n < 0 {
			break
		}
		start := at + n
		at = start + 1
		id, _, found := strings.Cut(s[at:min(len(s), at+len("sha1$"))], "$")
		if !found || !slices.Contains(cryptIDs, id) || start > 0 && isWordByte(s[start-1]) {
			continue
		}
		from := at + len(id) + 1
		last := from
		for at = from; at < len(s) && (isWordByte(s[at]) || strings.IndexByte("./$=,+-", s[at]) >= 0); at++ {
			if s[at] == '$' {
				last = at + 1
			}
		}
		if at-last >= leastHash && (last > from || strings.HasPrefix(id, "2")) {
			spans = append(spans, part{from, at})
		}
	}
	return spans
}

// cryptIDs are the methods of crypt(5), and Apache's.
var cryptIDs = []string{"1", "2", "2a", "2b", "2x", "2y", "5", "6", "7", "y", "gy", "md5", "sha1", "apr1"}

// programFlag is a short flag that takes a credential in one program and something harmless in others.
type programFlag struct {
	flag     string
	attached bool   // -pSECRET
	next     bool   // -p SECRET
	after    string // only what follows this in the value is secret: "user:password"
	login    bool   // only in a "login" command: docker run -p takes a port
}

var (
	attachedP = []programFlag{{flag: "-p", attached: true}}
	nextP     = []programFlag{{flag: "-p", next: true}}
	loginP    = []programFlag{{flag: "-p", attached: true, next: true, login: true}}
	ldapW     = []programFlag{{flag: "-w", attached: true, next: true}}
	sambaU    = []programFlag{{flag: "-U", attached: true, next: true, after: "%"}}
	zipP      = []programFlag{{flag: "-P", attached: true, next: true}}
	programs  = map[string][]programFlag{
		"curl": {
			{flag: "--user", next: true, after: ":"}, {flag: "--proxy-user", next: true, after: ":"},
			{flag: "-u", attached: true, next: true, after: ":"}, {flag: "-U", attached: true, next: true, after: ":"},
		},
		"mysql": attachedP, "mysqldump": attachedP, "mysqladmin": attachedP, "mysqlimport": attachedP,
		"mariadb": attachedP, "mariadb-dump": attachedP, "mariadb-admin": attachedP,
		"sshpass":   {{flag: "-p", attached: true, next: true}},
		"redis-cli": {{flag: "-a", next: true}},
		"mongo":     nextP, "mongosh": nextP, "mongodump": nextP, "mongorestore": nextP,
		"docker": loginP, "podman": loginP, "nerdctl": loginP, "buildah": loginP, "skopeo": loginP, "helm": loginP,
		"oras": loginP, "crane": loginP, "az": loginP,
		"ldapsearch": ldapW, "ldapadd": ldapW, "ldapmodify": ldapW, "ldapdelete": ldapW, "ldapwhoami": ldapW,
		"smbclient": sambaU, "rpcclient": sambaU,
		"useradd": nextP, "usermod": nextP,
		"sqlcmd": {{flag: "-P", attached: true, next: true}},
		"zip":    zipP, "unzip": zipP, "7z": attachedP, "7za": attachedP,
		"openssl": {
			{flag: "-passin", next: true, after: "pass:"}, {flag: "-passout", next: true, after: "pass:"},
			{flag: "-pass", next: true, after: "pass:"}, {flag: "-k", next: true}, {flag: "-K", next: true},
		},
	}
)

// byProgram finds a credential that args[i] is because of the program that args[0] names.
func byProgram(args []string, i int) (part, bool) {
	if i == 0 {
		return part{}, false
	}
	name := args[0]
	flags := programs[name[strings.LastIndexByte(name, '/')+1:]]
	arg := args[i]
	for _, f := range flags {
		if f.login && !slices.Contains(args, "login") {
			continue
		}
		from := 0
		switch {
		case f.next && args[i-1] == f.flag:
		case f.attached && len(arg) > len(f.flag) && strings.HasPrefix(arg, f.flag):
			from = len(f.flag)
		default:
			continue
		}
		if f.after != "" {
			n := strings.Index(arg[from:], f.after)
			if n < 0 {
				continue // a user name alone; the password is asked for
			}
			from += n + len(f.after)
		}
		return part{from, len(arg)}, true
	}
	return part{}, false
}
