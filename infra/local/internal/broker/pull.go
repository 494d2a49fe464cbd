package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/apss-sensor/apss/infra/local/internal/dispatch"
)

// The longest lease there is, and how often leases are renewed.
const (
	lease      = 600 * time.Second
	renewEvery = 200 * time.Second
	maxPull    = 1_000 // of one request, https://docs.cloud.google.com/pubsub/quotas#resource_limits
)

// pull is a pull subscription whose leases are renewed until Done. It does nothing that only an emulator does.
type pull struct {
	client pubsubpb.SubscriberClient
	name   string
	stop   context.CancelFunc
	ended  sync.WaitGroup

	mu     sync.Mutex
	leased map[string]struct{} // ack ids
}

func newPull(ctx context.Context, client pubsubpb.SubscriberClient, topic, name string) (*pull, error) {
	_, err := client.CreateSubscription(ctx, &pubsubpb.Subscription{
		Name: name, Topic: topic, AckDeadlineSeconds: int32(lease / time.Second)})
	if err != nil {
		return nil, fmt.Errorf("creating the subscription %s: %w", name, err)
	}
	p := &pull{client: client, name: name, leased: make(map[string]struct{})}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	p.ended.Go(func() { p.renew(renewing) })
	return p, nil
}

// Receive implements [dispatch.Source].
func (p *pull) Receive(ctx context.Context, limit int) ([]dispatch.Message, error) {
	for {
		resp, err := p.client.Pull(ctx, &pubsubpb.PullRequest{
			Subscription: p.name, MaxMessages: int32(min(limit, maxPull))})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if status.Code(err) == codes.DeadlineExceeded || err == nil && len(resp.GetReceivedMessages()) == 0 {
			continue // nothing came for as long as a request may wait
		}
		if err != nil {
			return nil, fmt.Errorf("pulling from %s: %w", p.name, err)
		}
		messages := make([]dispatch.Message, 0, len(resp.GetReceivedMessages()))
		p.mu.Lock()
		for _, r := range resp.GetReceivedMessages() {
			p.leased[r.GetAckId()] = struct{}{}
			m := r.GetMessage()
			messages = append(messages, dispatch.Message{
				ID: m.GetMessageId(), Lease: r.GetAckId(), Data: m.GetData(), Attributes: m.GetAttributes(),
				OrderingKey: m.GetOrderingKey(), PublishTime: m.GetPublishTime().AsTime(),
			})
		}
		p.mu.Unlock()
		return messages, nil
	}
}

// Done implements [dispatch.Source].
func (p *pull) Done(ctx context.Context, ackID string) error {
	p.mu.Lock()
	delete(p.leased, ackID)
	p.mu.Unlock()
	_, err := p.client.Acknowledge(ctx, &pubsubpb.AcknowledgeRequest{Subscription: p.name, AckIds: []string{ackID}})
	return err
}

// Backlog implements [Source]: no emulator tells it.
func (p *pull) Backlog() int { return -1 }

func (p *pull) renew(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.mu.Lock()
		ids := slices.Collect(maps.Keys(p.leased))
		p.mu.Unlock()
		for some := range slices.Chunk(ids, maxPull) {
			// What fails is tried again at the next tick, well within the lease; what is gone by then comes again.
			_, _ = p.client.ModifyAckDeadline(ctx, &pubsubpb.ModifyAckDeadlineRequest{
				Subscription: p.name, AckIds: some, AckDeadlineSeconds: int32(lease / time.Second)})
		}
	}
}

func (p *pull) close(ctx context.Context) error {
	p.stop()
	p.ended.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := p.client.DeleteSubscription(ctx, &pubsubpb.DeleteSubscriptionRequest{Subscription: p.name}); err != nil {
		return fmt.Errorf("deleting the subscription %s: %w", p.name, err)
	}
	return nil
}
