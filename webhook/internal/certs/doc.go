// Package certs keeps the certificates of the webhook and, where it is told to, the relay's.
//
// [Self]: an authority of our own, in a Secret that all replicas share. Any of them may act, under optimistic concurrency:
// read the webhook configuration, then the Secret; compute the next state ([State.Next], a function of values); write the
// Secret if it is still the one that was read; write the configuration's caBundle if that is still the one that was read.
// Who comes second reads again. Reading in this order makes it impossible that a slow replica puts an old bundle back over
// a newer one.
//
// An authority lives 10 years, because the sidecars trust the bundle that they were started with; it is replaced after two
// thirds of that, or when the annotation [RotateAnnotation] of the Secret changes:
//
//	publish old and new -> everyone has both -> grace -> certificates by the new one -> the last ones by the old one ended
//	-> publish the new one alone
//
// So no certificate that is served is ever one that the published bundle does not verify. The grace is how long sidecars
// that know only the old authority have to be replaced.
//
// [Files]: a certificate and key that others write (cert-manager), read again when they change.
//
// Limits: keys are ECDSA P-256. The Secrets are made by who installs us and may be empty: the right to create Secrets would
// be the right to make a token of every service account in the namespace.
package certs

import "time"

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 30 * 24 * time.Hour
	// backdate lets clocks differ.
	backdate = time.Hour
	// after is how long an authority stays published when the last certificate it signed ended.
	after = 24 * time.Hour
)

// due is when something that is valid for life from begin is to be replaced: after two thirds of it.
func due(begin, end time.Time) time.Time { return begin.Add(end.Sub(begin) / 3 * 2) }
