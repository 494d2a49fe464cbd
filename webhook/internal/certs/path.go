package certs

import (
	"crypto/rand"
	"crypto/subtle"
	"regexp"
	"strings"
	"time"
)

// PlainPath is the path of reviews that everyone knows: webhooks had no other before, and replicas of these may still run.
const PlainPath = "/mutate"

// secretPath is one that only who reads the webhook configuration knows: 130 random bits, as rand.Text makes them.
var secretPath = regexp.MustCompile(`^` + PlainPath + `/[a-z2-7]{26}$`)

// newPath draws a path. An API server takes segments that are DNS names, which have no upper case
// (k8s.io/apiserver/pkg/util/webhook ValidateWebhookService).
func newPath() string { return PlainPath + "/" + strings.ToLower(rand.Text()) }

const (
	pathLife = leafLife / 3 * 2
	// pathLag bounds how long replicas may take to read of a path, and API servers: the grace of authorities does where it is less.
	pathLag = time.Hour
)

// Paths are those of the reviews. Nothing but the path tells an API server from a pod: GKE's has no client certificate for
// webhooks, and its address may be a node's. So it is drawn at random, stands in the webhook configuration, which pods
// cannot read, and goes over TLS that we alone have the key for.
type Paths struct {
	Now   string    // published
	Next  string    // will be, once every replica has had the time to read of it
	Last  string    // was, and API servers learn late
	Since time.Time // when Next was made; without one, when Now took over
}

// next returns the paths that follow in w. A new path is asked for by renew.
func (p Paths) next(w *World, renew bool) Paths {
	lag := min(w.Grace, pathLag)
	if p.Now == "" {
		p.Since = w.Now
		switch {
		case secretPath.MatchString(w.Path), w.Path == PlainPath: // of an older version, or the Secret was emptied
			p.Now = w.Path
		case w.Others:
			p.Now = PlainPath
		default:
			p.Now = newPath()
		}
	}
	due := !w.Now.Before(p.Since.Add(pathLife))
	switch over := !w.Now.Before(p.Since.Add(lag)); {
	case p.Next == "" && (renew || due || p.Now == PlainPath):
		p.Next, p.Since = newPath(), w.Now
	case p.Next != "" && over && (p.Now != PlainPath || !w.Others):
		p = Paths{Now: p.Next, Last: p.Now, Since: w.Now}
	case p.Next == "" && over:
		p.Last = ""
	}
	return p
}

// publish returns the path that is to be published where there is another now: while replicas of a version run that serves
// only the plain one, who put that back is left alone.
func (p Paths) publish(w *World) string {
	if w.Path == PlainPath && w.Others {
		return w.Path
	}
	return p.Now
}

// served reports whether path is one of all, in a time that does not tell how much of it was right.
func served(all []string, path string) bool {
	found := 0
	for _, p := range all {
		if p != "" {
			found |= subtle.ConstantTimeCompare([]byte(p), []byte(path))
		}
	}
	return found == 1
}
