// Package monitoring stands where Cloud Monitoring stands, for the two metrics of Pub/Sub that the functions read: how many
// messages of a subscription are not acknowledged, and how old the oldest is. Samples are of the moment of the question; the
// service's are some minutes old.
//
// Sources: cloud.google.com/monitoring/api/ref_v3/rpc/google.monitoring.v3#metricservice,
// cloud.google.com/monitoring/api/v3/filters (of the filters it knows the form that the functions use, and refuses others),
// cloud.google.com/monitoring/api/metrics_gcp_p_z#gcp-pubsub.
package monitoring

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/monitoring/apiv3/v2/monitoringpb"
	"google.golang.org/genproto/googleapis/api/metric"
	"google.golang.org/genproto/googleapis/api/monitoredres"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Subscription is what is known of one.
type Subscription struct {
	ID          string
	Undelivered int64
	Oldest      time.Time // when the oldest of them was published; zero: there is none
}

// Server answers ListTimeSeries. Safe for concurrent use.
type Server struct {
	monitoringpb.UnimplementedMetricServiceServer
	project string
	look    func() []Subscription
}

// Register lets g serve what look returns of a project.
func Register(g *grpc.Server, project string, look func() []Subscription) {
	monitoringpb.RegisterMetricServiceServer(g, &Server{project: project, look: look})
}

const prefix = "pubsub.googleapis.com/subscription/"

var filter = regexp.MustCompile(`^metric\.type = "` + regexp.QuoteMeta(prefix) + `([a-z_]+)" AND ` +
	`resource\.labels\.subscription_id = monitoring\.regex\.full_match\(("(?:[^"\\]|\\.)*")\)$`)

// ListTimeSeries implements the service's.
func (s *Server) ListTimeSeries(_ context.Context, q *monitoringpb.ListTimeSeriesRequest) (*monitoringpb.ListTimeSeriesResponse, error) {
	parts := filter.FindStringSubmatch(q.GetFilter())
	if parts == nil {
		return nil, status.Errorf(codes.InvalidArgument, "this stand-in does not know the filter %.200q", q.GetFilter())
	}
	ids, err := pattern(parts[2])
	now := time.Now()
	var value func(Subscription) int64
	switch parts[1] {
	case "num_undelivered_messages":
		value = func(s Subscription) int64 { return s.Undelivered }
	case "oldest_unacked_message_age":
		value = func(s Subscription) int64 {
			if s.Oldest.IsZero() {
				return 0
			}
			return int64(max(now.Sub(s.Oldest), 0) / time.Second)
		}
	}
	interval := q.GetInterval()
	switch {
	case err != nil:
		return nil, status.Errorf(codes.InvalidArgument, "the filter's regular expression: %v", err)
	case value == nil:
		return nil, status.Errorf(codes.NotFound, "no metric %s%s", prefix, parts[1])
	case strings.TrimPrefix(q.GetName(), "projects/") != s.project:
		return nil, status.Errorf(codes.PermissionDenied, "no project %.100q", q.GetName())
	case interval.GetEndTime() == nil || interval.GetStartTime().AsTime().After(interval.GetEndTime().AsTime()):
		return nil, status.Error(codes.InvalidArgument, "the interval has no end, or ends before it starts")
	}
	resp := new(monitoringpb.ListTimeSeriesResponse)
	for _, sub := range s.look() {
		if ids.MatchString(sub.ID) {
			resp.TimeSeries = append(resp.TimeSeries, series(s.project, prefix+parts[1], sub.ID, value(sub), now))
		}
	}
	return resp, nil
}

// pattern reads a quoted regular expression that must match the whole.
func pattern(quoted string) (*regexp.Regexp, error) {
	text, err := strconv.Unquote(quoted)
	if err != nil {
		return nil, err
	}
	return regexp.Compile("^(?:" + text + ")$")
}

func series(project, kind, id string, value int64, at time.Time) *monitoringpb.TimeSeries {
	return &monitoringpb.TimeSeries{
		Metric: &metric.Metric{Type: kind},
		Resource: &monitoredres.MonitoredResource{
			Type: "pubsub_subscription", Labels: map[string]string{"project_id": project, "subscription_id": id},
		},
		MetricKind: metric.MetricDescriptor_GAUGE, ValueType: metric.MetricDescriptor_INT64,
		Points: []*monitoringpb.Point{{
			Interval: &monitoringpb.TimeInterval{EndTime: timestamppb.New(at)},
			Value:    &monitoringpb.TypedValue{Value: &monitoringpb.TypedValue_Int64Value{Int64Value: value}},
		}},
	}
}
