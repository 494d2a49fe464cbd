package broker

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// mostKept messages are in a box; more push the oldest out.
	mostKept = 10_000
	// pulled is how long what was pulled is the puller's, unless it says otherwise: the service's default.
	pulled = 10 * time.Second
	// mostPulled is of one request, https://docs.cloud.google.com/pubsub/quotas#resource_limits
	mostPulled = 1_000
)

// box is a pull subscription, which clients reach by the protocol: Pull, Acknowledge, ModifyAckDeadline. It is there
// because pstest forgets after ten minutes what nobody took. The server's lock is its.
type box struct {
	name  string
	log   *slog.Logger
	kept  []*kept // as they were published
	pulls int
}

type kept struct {
	message *pubsubpb.PubsubMessage
	ack     string // of the last pull
	until   time.Time
}

func (s *server) keep(topic, subscription string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.boxes[subscription] != nil {
		return
	}
	b := &box{name: subscription, log: s.log}
	s.boxes[subscription] = b
	t := s.topic(topic)
	t.boxes = append(t.boxes, b)
}

func (b *box) put(id string, m *pubsubpb.PubsubMessage, now time.Time) {
	if len(b.kept) >= mostKept {
		b.log.Warn("a subscription is full: its oldest message is dropped", "subscription", b.name, "id", b.kept[0].message.GetMessageId())
	}
	b.kept = append(b.kept[max(0, len(b.kept)-mostKept+1):], &kept{message: &pubsubpb.PubsubMessage{
		MessageId: id, Data: m.GetData(), Attributes: maps.Clone(m.GetAttributes()), OrderingKey: m.GetOrderingKey(),
		PublishTime: timestamppb.New(now),
	}})
}

// onPull answers at once, also with nothing: the service may.
func (s *server) onPull(request any) (bool, any, error) {
	q := request.(*pubsubpb.PullRequest)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[q.GetSubscription()]
	if b == nil {
		return false, nil, nil
	}
	now, resp := time.Now(), new(pubsubpb.PullResponse)
	for _, k := range b.kept {
		if len(resp.GetReceivedMessages()) >= min(cmp.Or(int(q.GetMaxMessages()), mostPulled), mostPulled) {
			break
		}
		if now.Before(k.until) {
			continue
		}
		b.pulls++
		k.ack, k.until = k.message.GetMessageId()+"-"+strconv.Itoa(b.pulls), now.Add(pulled)
		resp.ReceivedMessages = append(resp.ReceivedMessages, &pubsubpb.ReceivedMessage{AckId: k.ack, Message: k.message})
	}
	return true, resp, nil
}

func (s *server) onAcknowledge(request any) (bool, any, error) {
	q := request.(*pubsubpb.AcknowledgeRequest)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[q.GetSubscription()]
	if b == nil {
		return false, nil, nil
	}
	b.kept = slices.DeleteFunc(b.kept, func(k *kept) bool { return k.ack != "" && slices.Contains(q.GetAckIds(), k.ack) })
	return true, new(emptypb.Empty), nil
}

// onModify knows no ack id that is not of the last pull: whose time is over holds nothing.
func (s *server) onModify(request any) (bool, any, error) {
	q := request.(*pubsubpb.ModifyAckDeadlineRequest)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.boxes[q.GetSubscription()]
	if b == nil {
		return false, nil, nil
	}
	now := time.Now()
	for _, k := range b.kept {
		if k.ack != "" && slices.Contains(q.GetAckIds(), k.ack) {
			k.until = now.Add(time.Duration(q.GetAckDeadlineSeconds()) * time.Second)
		}
	}
	return true, new(emptypb.Empty), nil
}
