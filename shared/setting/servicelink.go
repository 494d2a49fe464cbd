package setting

import "strings"

// serviceLink reports whether Kubernetes sets key to value for a Service in the pod's namespace: NAME_SERVICE_HOST,
// NAME_SERVICE_PORT, NAME_SERVICE_PORT_<port name>, and the links NAME_PORT, NAME_PORT_<n>_<TCP|UDP|SCTP> and the
// latter's _PROTO, _PORT and _ADDR (kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
//
// NAME_PORT alone could as well be a setting misspelt, so its value must be a link's, like "tcp://10.0.0.11:6379".
func serviceLink(key, value string) bool {
	if !isName(key) {
		return false
	}
	if strings.HasSuffix(key, "_SERVICE_HOST") || strings.HasSuffix(key, "_SERVICE_PORT") {
		return true
	}
	if _, port, _ := strings.Cut(key, "_SERVICE_PORT_"); port != "" {
		return true
	}
	if strings.HasSuffix(key, "_PORT") {
		switch protocol, address, _ := strings.Cut(value, "://"); protocol {
		case "tcp", "udp", "sctp":
			return strings.Contains(address, ":")
		}
	}
	// From the end, because a Service's name may itself hold "_PORT_".
	for _, suffix := range []string{"_PROTO", "_PORT", "_ADDR"} {
		if link, ok := strings.CutSuffix(key, suffix); ok {
			key = link
			break
		}
	}
	for _, protocol := range []string{"_TCP", "_UDP", "_SCTP"} {
		if rest, ok := strings.CutSuffix(key, protocol); ok {
			name := strings.TrimRight(rest, "0123456789")
			return name != rest && strings.HasSuffix(name, "_PORT_")
		}
	}
	return false
}

// isName reports whether s is a Service's name, a DNS label that starts with a letter (RFC 1035), or starts with one, in
// upper case and with dashes as underscores.
func isName(s string) bool {
	for i, c := range []byte(s) {
		if letter := 'A' <= c && c <= 'Z'; !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}
