package backlog

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/monitoring/apiv3/v2/monitoringpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/api/monitoredres"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/apss-sensor/apss/functions/internal/health"
)

// service answers as Cloud Monitoring does.
type service struct {
	monitoringpb.UnimplementedMetricServiceServer

	mu     sync.Mutex
	asked  []*monitoringpb.ListTimeSeriesRequest
	series map[string][]*monitoringpb.TimeSeries // by metric
	err    error
}

func (s *service) ListTimeSeries(_ context.Context, q *monitoringpb.ListTimeSeriesRequest) (*monitoringpb.ListTimeSeriesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, q)
	for metric, all := range s.series {
		if strings.Contains(q.GetFilter(), metric) {
			return &monitoringpb.ListTimeSeriesResponse{TimeSeries: all}, s.err
		}
	}
	return &monitoringpb.ListTimeSeriesResponse{}, s.err
}

func (s *service) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func (s *service) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func of(subscription string, values ...int64) *monitoringpb.TimeSeries {
	t := &monitoringpb.TimeSeries{Resource: &monitoredres.MonitoredResource{Labels: map[string]string{"subscription_id": subscription}}}
	for i, v := range values { // the newest first, as the service has them
		t.Points = append(t.Points, &monitoringpb.Point{
			Interval: &monitoringpb.TimeInterval{EndTime: timestamppb.New(time.Unix(int64(1000-60*i), 0))},
			Value:    &monitoringpb.TypedValue{Value: &monitoringpb.TypedValue_Int64Value{Int64Value: v}},
		})
	}
	return t
}

func start(t *testing.T, fresh time.Duration) (*service, *Reader) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, server := new(service), grpc.NewServer()
	monitoringpb.RegisterMetricServiceServer(server, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	r := New(Config{Project: "p", Topics: []string{"apss-events", "apss-alerts"}, Fresh: fresh, Standin: l.Addr().String()})
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		serving.Wait()
	})
	return s, r
}

func TestRead(t *testing.T) {
	s, r := start(t, time.Hour)
	s.series = map[string][]*monitoringpb.TimeSeries{
		undelivered: {of("apss-events-soc", 7, 900), of("apss-alerts-soc", 5), of("apss-alerts-chat-2", 0), of("apss-events-empty"), of("other", 3), of("", 1)},
		oldest:      {of("apss-events-soc", 61), of("apss-alerts-soc", 4), of("apss-alerts-unknown", 4)},
	}
	want := map[string]health.Waiting{
		"soc":    {Messages: 12, Oldest: 61 * time.Second, Known: true},
		"chat-2": {Known: true},
	}
	for range 2 {
		got, err := r.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if len(s.asked) != 2 {
		t.Fatalf("got %d questions, want one for each metric: what is fresh is not asked for", len(s.asked))
	}
	for _, q := range s.asked {
		if q.GetName() != "projects/p" || !strings.Contains(q.GetFilter(), `full_match("(apss-events|apss-alerts)-.*")`) {
			t.Errorf("got the question %v", q)
		}
	}
}

// TestFailure: it says what to do, and is an answer for a while; the asker's own end is none.
func TestFailure(t *testing.T) {
	s, r := start(t, time.Hour)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Read(gone); err == nil {
		t.Error("got no error of an asker who left")
	}
	s.fail(status.Error(codes.PermissionDenied, "no"))
	before := s.questions()
	for range 2 {
		if _, err := r.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "roles/monitoring.viewer") {
			t.Errorf("got %v, want it to name the role", err)
		}
	}
	if n := s.questions() - before; n != 1 {
		t.Errorf("got %d questions, want one", n)
	}
}

// TestFresh: what is old is asked for again.
func TestFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Config{Fresh: time.Minute})
		r.at, r.last = time.Now(), map[string]health.Waiting{"a": {}}
		time.Sleep(time.Minute - time.Second)
		if got, err := r.Read(t.Context()); err != nil || len(got) != 1 {
			t.Errorf("got %v, %v, want what is known", got, err)
		}
		time.Sleep(time.Second)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		r.cfg.Standin = "127.0.0.1:1"
		if _, err := r.Read(gone); err == nil {
			t.Error("got what is old")
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}
