package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/apss-sensor/apss/shared/outcome"
	"github.com/apss-sensor/apss/shared/secret"
)

// Bytes of a signing secret (standard-webhooks.md, Signature scheme).
const (
	minKey = 24
	maxKey = 64
)

// sign sets the headers of Standard Webhooks: the id, the time of this try, and a signature with each of secrets.
func sign(h http.Header, id string, at time.Time, body []byte, secrets []secret.Value) error {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", timestamp)
	signatures := make([]string, 0, len(secrets))
	for _, s := range secrets {
		key, err := signingKey(s)
		if err != nil {
			return err
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%s.", id, timestamp)
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if len(signatures) > 0 {
		h.Set("Webhook-Signature", strings.Join(signatures, " "))
	}
	return nil
}

// signingKey is the key that a secret stands for.
func signingKey(s secret.Value) ([]byte, error) {
	text, ok := strings.CutPrefix(s.Reveal(), "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < minKey || len(key) > maxKey {
		return nil, &outcome.Error{
			Class:  outcome.Auth,
			Reason: fmt.Sprintf("the signing secret is not whsec_ and the base64 of %d to %d bytes; make one with: echo whsec_$(openssl rand -base64 32)", minKey, maxKey),
		}
	}
	return key, nil
}
