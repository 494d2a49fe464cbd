package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/apss-sensor/apss/edge/internal/publish"
	"github.com/apss-sensor/apss/edge/internal/relay/token"
	"github.com/apss-sensor/apss/shared/batch"
	"github.com/apss-sensor/apss/shared/outcome"
)

// reason is why a request was not accepted, as the metrics name it.
type reason string

const (
	reasonNone        reason = ""
	reasonToken       reason = "token"
	reasonUnavailable reason = "tokens_unavailable"
	reasonContent     reason = "content"
	reasonSize        reason = "size"
	reasonCut         reason = "cut_short"
	reasonRequests    reason = "pod_requests"
	reasonRate        reason = "pod_rate"
	reasonShare       reason = "pod_share"
	reasonRoom        reason = "room"
	reasonPubSub      reason = "pubsub"
	reasonEnding      reason = "ending"
)

func reasons() []reason {
	return []reason{
		reasonToken, reasonUnavailable, reasonContent, reasonSize, reasonCut, reasonRequests, reasonRate, reasonShare, reasonRoom,
		reasonPubSub, reasonEnding,
	}
}

// answer is what a sender is told.
type answer struct {
	status  int
	reason  reason
	text    string        // for a person
	after   time.Duration // when to come back, at least
	refused bool          // the message will never be accepted
}

// later is the answer to a sender that is to slow down.
func later(why reason, text string) answer {
	return answer{status: http.StatusTooManyRequests, reason: why, text: text, after: time.Second}
}

// refused is the answer about a message that will never be accepted.
func refused(status int, why reason, text string) answer {
	return answer{status: status, reason: why, text: text, refused: true}
}

// jitter spreads the senders that come back, as a part of the time that they were told.
const jitter = 1.0

func (a *answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if a.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="apss-relay"`)
	}
	if a.after > 0 { // whole seconds: RFC 9110 section 10.2.3
		seconds := a.after.Seconds() * (1 + jitter*rand.Float64()) //nolint:gosec // no secret
		h.Set("Retry-After", strconv.Itoa(max(int(seconds+0.5), 1)))
	}
	switch {
	case a.status == http.StatusOK:
		h.Set(publish.VerdictHeader, publish.VerdictAccepted)
	case a.refused:
		h.Set(publish.VerdictHeader, publish.VerdictRefused)
	}
	w.WriteHeader(a.status)
	if a.text != "" {
		_, _ = w.Write([]byte(a.text + "\n")) //nolint:gosec // it is plain text and says so; who went away is told nothing
	}
}

// unauthenticated is the answer to who could not prove what it is.
func unauthenticated(err error) answer {
	var no *token.Refused
	if errors.As(err, &no) {
		return answer{status: http.StatusUnauthorized, reason: reasonToken, text: no.Reason}
	}
	return answer{status: http.StatusServiceUnavailable, reason: reasonUnavailable, after: 2 * time.Second,
		text: "tokens cannot be checked now: the API server does not answer the relay; keep what you have"}
}

// verdict is the answer to what was handed to the publisher.
func verdict(err error) answer {
	if err == nil {
		return answer{status: http.StatusOK}
	}
	var crashed *batch.PanicError
	switch o := outcome.From(err); {
	case errors.Is(err, batch.ErrClosed):
		return answer{status: http.StatusServiceUnavailable, reason: reasonEnding, text: "the relay ends", after: time.Second}
	case errors.As(err, &crashed):
		return answer{status: http.StatusInternalServerError, reason: reasonPubSub, text: "the relay made a mistake; it is in its log", after: time.Second}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return later(reasonPubSub, "Pub/Sub is slow")
	case o.Class == outcome.Permanent:
		return refused(http.StatusUnprocessableEntity, reasonPubSub, "Pub/Sub will never accept the message")
	case o.Class == outcome.Auth:
		return answer{status: http.StatusServiceUnavailable, reason: reasonPubSub, after: 10 * time.Second,
			text: "Pub/Sub does not accept the relay; the relay's log says why"}
	default:
		return answer{status: http.StatusTooManyRequests, reason: reasonPubSub, after: max(o.After, 2*time.Second),
			text: "Pub/Sub does not take it now; the relay's log says why"}
	}
}

// settled reports whether nobody works any more on what publish was called with.
func settled(err error) bool { return !errors.Is(err, batch.ErrUnderWay) }
