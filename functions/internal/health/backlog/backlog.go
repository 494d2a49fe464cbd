// Package backlog reads how much waits in the push subscriptions of integrations, from the metrics that Pub/Sub gives to
// Cloud Monitoring.
//
// A subscription is an integration's when its id is the topic's id, a dash, and the integration's name. Figures are as old
// as the service makes them: sampled every minute, and visible up to two minutes later
// (cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-pubsub). What has no sample of the last ten minutes is not there.
//
// Promises: nothing is asked more often than every Config.Fresh, however many look; a failure counts as an answer, so that
// a service that hangs is waited for once in that time. It takes the permission monitoring.timeSeries.list.
package backlog

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	monitoring "cloud.google.com/go/monitoring/apiv3/v2"
	"cloud.google.com/go/monitoring/apiv3/v2/monitoringpb"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/apss-sensor/apss/functions/internal/health"
)

// Config says where to look. All fields are required but Standin.
type Config struct {
	Project string   // of the subscriptions
	Topics  []string // ids
	Fresh   time.Duration
	// Standin is the host:port of what stands where Cloud Monitoring stands; empty: the service.
	Standin string
}

// Reader is safe for concurrent use.
type Reader struct {
	cfg Config

	mu     sync.Mutex // held while the service is asked
	client *monitoring.MetricClient
	at     time.Time
	last   map[string]health.Waiting
	err    error
}

// New returns a reader, which connects with the first Read.
func New(c Config) *Reader { return &Reader{cfg: c} }

const (
	// callTimeout bounds a reading. A report waits for it.
	callTimeout = 5 * time.Second
	// window is how far back samples are looked for.
	window = 10 * time.Minute
	// mostSeries is what is read of one metric: 500 integrations with two subscriptions each.
	mostSeries = 1_000
	perPage    = 1_000
)

const (
	undelivered = "pubsub.googleapis.com/subscription/num_undelivered_messages"
	oldest      = "pubsub.googleapis.com/subscription/oldest_unacked_message_age" // seconds
)

// Read returns what waits, by the integration's name. One that is not there is not known. The map must not be changed.
func (r *Reader) Read(ctx context.Context) (map[string]health.Waiting, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.at.IsZero() || now.Sub(r.at) >= r.cfg.Fresh {
		waiting, err := r.read(ctx, now)
		if err != nil && ctx.Err() != nil {
			return nil, err // the asker's end says nothing of the service
		}
		r.last, r.err, r.at = waiting, err, now
	}
	return r.last, r.err
}

func (r *Reader) read(ctx context.Context, now time.Time) (map[string]health.Waiting, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	all := map[string]health.Waiting{}
	for metric, add := range map[string]func(*health.Waiting, int64){
		undelivered: func(w *health.Waiting, v int64) { w.Messages += v; w.Known = true },
		oldest:      func(w *health.Waiting, v int64) { w.Oldest = max(w.Oldest, time.Duration(v)*time.Second) },
	} {
		values, err := r.latest(ctx, metric, now)
		if err != nil {
			return nil, err
		}
		for subscription, v := range values {
			name, ok := r.integration(subscription)
			if !ok {
				continue
			}
			w := all[name]
			add(&w, v)
			all[name] = w
		}
	}
	for name, w := range all {
		if !w.Known {
			delete(all, name)
		}
	}
	return all, nil
}

// integration is whose a subscription is.
func (r *Reader) integration(subscription string) (name string, ok bool) {
	for _, topic := range r.cfg.Topics {
		if name, ok = strings.CutPrefix(subscription, topic+"-"); ok {
			return name, true
		}
	}
	return "", false
}

// latest returns a metric's newest samples, by subscription.
func (r *Reader) latest(ctx context.Context, metric string, now time.Time) (map[string]int64, error) {
	topics := make([]string, len(r.cfg.Topics))
	for i, t := range r.cfg.Topics {
		topics[i] = regexp.QuoteMeta(t)
	}
	series := r.client.ListTimeSeries(ctx, &monitoringpb.ListTimeSeriesRequest{
		Name: "projects/" + r.cfg.Project,
		Filter: fmt.Sprintf("metric.type = %q AND resource.labels.subscription_id = monitoring.regex.full_match(%q)",
			metric, "("+strings.Join(topics, "|")+")-.*"),
		Interval: &monitoringpb.TimeInterval{StartTime: timestamppb.New(now.Add(-window)), EndTime: timestamppb.New(now)},
		PageSize: perPage,
	})
	values := map[string]int64{}
	for range mostSeries {
		s, err := series.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			return nil, explain(err)
		}
		var newest *monitoringpb.Point
		for _, p := range s.GetPoints() {
			if newest == nil || p.GetInterval().GetEndTime().AsTime().After(newest.GetInterval().GetEndTime().AsTime()) {
				newest = p
			}
		}
		if newest != nil {
			values[s.GetResource().GetLabels()["subscription_id"]] = max(newest.GetValue().GetInt64Value(), 0)
		}
	}
	return values, nil
}

// explain says what to do about an error, where that is known.
func explain(err error) error {
	if status.Code(err) == codes.PermissionDenied {
		return fmt.Errorf("give the function's service account roles/monitoring.viewer: %w", err)
	}
	return fmt.Errorf("asking Cloud Monitoring: %w", err)
}

func (r *Reader) connect(ctx context.Context) (err error) {
	if r.client != nil {
		return nil
	}
	var options []option.ClientOption
	if r.cfg.Standin != "" {
		options = []option.ClientOption{
			option.WithEndpoint(r.cfg.Standin), option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		}
	}
	// The connection outlives the question.
	if r.client, err = monitoring.NewMetricClient(context.WithoutCancel(ctx), options...); err != nil {
		r.client = nil
		return fmt.Errorf("connecting to Cloud Monitoring: %w", err)
	}
	return nil
}

// Close ends the connection. Nothing must be read from then on.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		return nil
	}
	err := r.client.Close()
	r.client = nil
	return err
}
