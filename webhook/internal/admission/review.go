package admission

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// apiVersion is the only one that is spoken; v1beta1 ended with Kubernetes 1.22
// (https://kubernetes.io/docs/reference/using-api/deprecation-guide/#webhook-resources-v122).
const apiVersion = "admission.k8s.io/v1"

// Request is what an AdmissionReview asks, as far as it matters here
// (https://kubernetes.io/docs/reference/config-api/apiserver-admission.v1/).
type Request struct {
	UID         string         `json:"uid"`
	Kind        Kind           `json:"kind"`
	SubResource string         `json:"subResource"`
	Name        string         `json:"name"`
	Namespace   string         `json:"namespace"`
	Operation   string         `json:"operation"`
	User        User           `json:"userInfo"`
	DryRun      bool           `json:"dryRun"`
	Object      jsontext.Value `json:"object"`
}

// Kind is a type of the API.
type Kind struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
}

// User is who asks.
type User struct {
	Name   string   `json:"username"`
	Groups []string `json:"groups"`
}

// parse reads a review. The error is for the API server's log.
func parse(body []byte) (*Request, error) {
	var review struct {
		APIVersion string   `json:"apiVersion"`
		Kind       string   `json:"kind"`
		Request    *Request `json:"request"`
	}
	if len(body) == 0 {
		return nil, errors.New("the body is empty, want an AdmissionReview")
	}
	// The API server writes no name twice; see pod.Parse.
	if err := json.Unmarshal(body, &review, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, fmt.Errorf("reading the AdmissionReview: %w", err)
	}
	switch {
	case review.Kind != "AdmissionReview" || review.APIVersion != apiVersion:
		return nil, fmt.Errorf("got a %.60q of %.60q, want an AdmissionReview of %s", review.Kind, review.APIVersion, apiVersion)
	case review.Request == nil:
		return nil, errors.New("the AdmissionReview has no request")
	case review.Request.UID == "":
		return nil, errors.New("the AdmissionReview's request has no uid")
	}
	return review.Request, nil
}

// headSize is more than an API server writes of a review before its uid.
const headSize = 256

// uidIn returns the uid in the first bytes of a review, without reading it as JSON; "" when there is none. The API server
// takes no answer without it.
func uidIn(head []byte) string {
	_, rest, _ := bytes.Cut(head, []byte(`"request":{"uid":"`))
	uid, _, found := bytes.Cut(rest, []byte{'"'})
	if !found || len(uid) > 64 || bytes.ContainsFunc(uid, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) {
		return ""
	}
	return string(uid)
}

// answer is the response to one request. Everything is allowed: who is refused is decided by policies, not by a sensor.
type answer struct {
	uid      string
	patch    []byte
	reason   string
	tier     string // of the agent that the pod got
	less     string // why it is no more
	warnings []string
}

// maxWarning: longer ones are cut by the API server, and more than 4 KiB of them dropped
// (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response).
const maxWarning = 256

// append writes the AdmissionReview that answers.
func (a *answer) append(b []byte) []byte {
	b = append(b, `{"apiVersion":"`+apiVersion+`","kind":"AdmissionReview","response":{"uid":`...)
	b = quote(b, a.uid)
	b = append(b, `,"allowed":true`...)
	if a.patch != nil {
		b = append(b, `,"patchType":"JSONPatch","patch":"`...)
		b = base64.StdEncoding.AppendEncode(b, a.patch)
		b = append(b, '"')
	}
	if len(a.warnings) > 0 {
		b = append(b, `,"warnings":`...)
		for i, w := range a.warnings {
			b = append(b, "[,"[min(i, 1)])
			b = quote(b, "apss: "+w[:min(len(w), maxWarning-len("apss: "))])
		}
		b = append(b, ']')
	}
	b = append(b, `,"auditAnnotations":{"decision":`...)
	b = quote(b, a.reason)
	if a.tier != "" {
		b = quote(append(b, `,"tier":`...), a.tier)
	}
	if a.less != "" {
		b = quote(append(b, `,"tier-reason":`...), a.less)
	}
	return append(b, `}}}`...)
}

// quote appends s as a JSON string; what is no UTF-8 of it is replaced.
func quote(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}
