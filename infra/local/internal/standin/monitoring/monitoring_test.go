package monitoring

import (
	"fmt"
	"testing"
	"time"

	"cloud.google.com/go/monitoring/apiv3/v2/monitoringpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestListTimeSeries(t *testing.T) {
	const of = `metric.type = "pubsub.googleapis.com/subscription/%s" AND resource.labels.subscription_id = monitoring.regex.full_match("%s")`
	s := &Server{project: "p", look: func() []Subscription {
		return []Subscription{
			{ID: "events-a", Undelivered: 7, Oldest: time.Now().Add(-90*time.Second - 500*time.Millisecond)}, {ID: "events-b"}, {ID: "other-events-a", Undelivered: 1},
		}
	}}
	for _, tt := range []struct {
		name, project, filter string
		backwards             bool
		code                  codes.Code
		want                  string
	}{
		{name: "count", filter: fmt.Sprintf(of, "num_undelivered_messages", "(events|alerts)-.*"), want: "events-a=7 events-b=0 "},
		{name: "age", filter: fmt.Sprintf(of, "oldest_unacked_message_age", "events-.*"), want: "events-a=90 events-b=0 "},
		{name: "quotes and backslashes", filter: fmt.Sprintf(of, "num_undelivered_messages", `events\\-\"?a`), want: "events-a=7 "},
		{name: "another metric", filter: fmt.Sprintf(of, "sent_message_count", ".*"), code: codes.NotFound},
		{name: "another project", project: "projects/q", filter: fmt.Sprintf(of, "num_undelivered_messages", ".*"), code: codes.PermissionDenied},
		{name: "no filter", code: codes.InvalidArgument},
		{name: "a bad expression", filter: fmt.Sprintf(of, "num_undelivered_messages", "("), code: codes.InvalidArgument},
		{name: "more behind it", filter: fmt.Sprintf(of, "num_undelivered_messages", ".*") + " OR x", code: codes.InvalidArgument},
		{name: "an interval that ends before it starts", filter: fmt.Sprintf(of, "num_undelivered_messages", ".*"), backwards: true, code: codes.InvalidArgument},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, to := time.Now().Add(-time.Minute), time.Now()
			if tt.backwards {
				from, to = to, from
			}
			q := &monitoringpb.ListTimeSeriesRequest{
				Name: "projects/p", Filter: tt.filter,
				Interval: &monitoringpb.TimeInterval{StartTime: timestamppb.New(from), EndTime: timestamppb.New(to)},
			}
			if tt.project != "" {
				q.Name = tt.project
			}
			resp, err := s.ListTimeSeries(t.Context(), q)
			got := ""
			for _, series := range resp.GetTimeSeries() {
				got += fmt.Sprintf("%s=%d ", series.GetResource().GetLabels()["subscription_id"], series.GetPoints()[0].GetValue().GetInt64Value())
			}
			if status.Code(err) != tt.code || got != tt.want {
				t.Errorf("got %q, %v; want %q, %s", got, err, tt.want, tt.code)
			}
		})
	}
}
