package token

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// claims are what a token says of itself (RFC 7519; kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin).
// They are believed only to refuse a token early, and, once the API server accepted it, for how long it lives.
type claims struct {
	Audience audience `json:"aud"`
	Expires  float64  `json:"exp"` // seconds since 1970
	Cluster  struct {
		Pod struct {
			Name string `json:"name"`
		} `json:"pod"`
	} `json:"kubernetes.io"`
}

// audience is a string or a list of them.
type audience []string

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (a *audience) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '"' {
		return json.UnmarshalDecode(d, (*[]string)(a))
	}
	*a = audience{""}
	return json.UnmarshalDecode(d, &(*a)[0])
}

// parse reads the claims without looking at the signature.
func parse(token string) (c claims, ok bool) {
	_, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	if payload == "" || signature == "" || strings.Contains(signature, ".") {
		return c, false
	}
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return c, false
	}
	return c, json.Unmarshal(text, &c) == nil
}

// expiry returns when the token ends; the zero time where it does not say so.
func (c *claims) expiry() time.Time {
	const latest = 253402300799 // the year 9999
	if c.Expires < 1 || c.Expires > latest {
		return time.Time{}
	}
	return time.Unix(int64(c.Expires), 0)
}

// leeway is how far the API server's clock may be from ours.
const leeway = time.Minute

// fault says why a token with these claims will be refused, or "".
func (c *claims) fault(wanted string, now time.Time) string {
	ends := c.expiry()
	switch {
	case !slices.Contains(c.Audience, wanted):
		return fmt.Sprintf("the token is for the audience %.100q and not for %q: project one with that audience", []string(c.Audience), wanted)
	case ends.IsZero():
		return "the token does not say when it expires: project one (serviceAccountToken)"
	case now.After(ends.Add(leeway)):
		return "the token expired at " + ends.UTC().Format(time.RFC3339) + ": read its file again, the kubelet replaces it in time"
	case c.Cluster.Pod.Name == "":
		return "the token is not bound to a pod: project one (serviceAccountToken)"
	}
	return ""
}
