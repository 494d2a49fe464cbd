package event

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Fingerprint names the incident that an alert of rule about e belongs to: 32 hex digits that depend on the rule's id,
// the cluster, the namespace, the workload (else the pod) and the values of the rule's own grouping fields, in the
// rule's order; on nothing that differs between two repeats.
func Fingerprint(rule string, e *Event, grouping ...string) string {
	var room [512]byte
	b := room[:0]
	for _, s := range [...]string{rule, e.Cluster, e.PodNamespace, cmp.Or(e.Workload, e.PodName)} {
		b = appendLengthPrefixed(b, s)
	}
	for _, s := range grouping {
		b = appendLengthPrefixed(b, s)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// appendLengthPrefixed keeps ("a", "bc") apart from ("ab", "c").
func appendLengthPrefixed(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
