package secretmanager

import (
	"context"
	"hash/crc32"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/apss-sensor/apss/shared/secret"
)

// service stands where Secret Manager stands, and answers as its documentation says.
type service struct {
	secretmanagerpb.UnimplementedSecretManagerServiceServer
	mu       sync.Mutex
	versions map[string]version // by resource name
	outages  int                // calls that find it down
	calls    int
}

type version struct {
	data     string
	disabled bool
	denied   bool
	sum      func(uint32) *int64 // what is sent as the checksum, from the right one
}

func (s *service) AccessSecretVersion(_ context.Context, r *secretmanagerpb.AccessSecretVersionRequest) (*secretmanagerpb.AccessSecretVersionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	v, found := s.versions[r.GetName()]
	switch {
	case s.outages > 0:
		s.outages--
		return nil, status.Error(codes.Unavailable, "The service is currently unavailable.")
	case v.denied:
		return nil, status.Errorf(codes.PermissionDenied, "Permission 'secretmanager.versions.access' denied for resource '%s' (or it may not exist).", r.GetName())
	case !found:
		return nil, status.Errorf(codes.NotFound, "Secret Version [%s] not found.", r.GetName())
	case v.disabled:
		return nil, status.Errorf(codes.FailedPrecondition, "Secret Version [%s] is in DISABLED state.", r.GetName())
	}
	sum := crc32.Checksum([]byte(v.data), crc32.MakeTable(crc32.Castagnoli))
	right := int64(sum)
	payload := &secretmanagerpb.SecretPayload{Data: []byte(v.data), DataCrc32C: &right}
	if v.sum != nil {
		payload.DataCrc32C = v.sum(sum)
	}
	name := strings.Replace(r.GetName(), "/versions/latest", "/versions/7", 1)
	return &secretmanagerpb.AccessSecretVersionResponse{Name: name, Payload: payload}, nil
}

// newManager is a manager of the secrets that s has.
func newManager(t *testing.T, s *service) *Manager {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	secretmanagerpb.RegisterSecretManagerServiceServer(server, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); wg.Wait() })
	conn, err := grpc.NewClient("passthrough:///secretmanager", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	m := New(slog.New(slog.DiscardHandler), option.WithGRPCConn(conn))
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

const resource = "projects/p/secrets/s/versions/"

func TestAccess(t *testing.T) {
	wrong := func(sum uint32) *int64 { w := int64(sum) + 1; return &w }
	tests := []struct {
		name, version string
		stored        version
		outages       int
		want          string
		fault         []string
	}{
		{"number", "3", version{data: "key"}, 0, "key", nil},
		{"latest", "latest", version{data: "key"}, 0, "key", nil},
		{"alias", "prod", version{data: "key"}, 0, "key", nil},
		{"line end", "3", version{data: "key\r\n"}, 0, "key", nil},
		{"no checksum", "3", version{data: "key", sum: func(uint32) *int64 { return nil }}, 0, "key", nil},
		{"down for a moment", "3", version{data: "key"}, 1, "key", nil},
		{"damaged", "3", version{data: "hunter2", sum: wrong}, 0, "", []string{"damaged", "CRC32C"}},
		{"empty", "3", version{data: "\n"}, 0, "", []string{"empty"}},
		{"denied", "3", version{denied: true}, 0, "", []string{"roles/secretmanager.secretAccessor"}},
		{"disabled", "3", version{data: "hunter2", disabled: true}, 0, "", []string{"DISABLED", "enable it"}},
		{"down", "3", version{data: "hunter2"}, 1000, "", []string{"reading the secret " + resource + "3"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // the one that is down takes as long as a call may
			m := newManager(t, &service{versions: map[string]version{resource + tt.version: tt.stored}, outages: tt.outages})
			s, err := m.Parse("secret://" + resource + tt.version)
			if err != nil {
				t.Fatal(err)
			}
			v, err := s.Get(t.Context())
			if v.Reveal() != tt.want || (err == nil) != (tt.fault == nil) {
				t.Fatalf("got %q, %v, want %q", v.Reveal(), err, tt.want)
			}
			for _, want := range tt.fault {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want it to say %q", err, want)
				}
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		s, err := newManager(t, &service{}).Parse("secret://" + resource + "9")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context()); err == nil || !strings.Contains(err.Error(), "is the project, the name and the version right?") {
			t.Errorf("got %v", err)
		}
	})
}

// TestShared: instances that name the same secret share one read.
func TestShared(t *testing.T) {
	fake := &service{versions: map[string]version{resource + "1": {data: "key"}}}
	m := newManager(t, fake)
	for range 3 {
		s, err := m.Parse("secret://" + resource + "1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if fake.calls != 1 {
		t.Errorf("got %d calls, want 1", fake.calls)
	}
}

func TestParse(t *testing.T) {
	m := New(slog.New(slog.DiscardHandler))
	defer m.Close()
	schemes := secret.Schemes{Scheme: m.Parse}
	for ref, ok := range map[string]bool{
		"secret://projects/my-project/secrets/slack_URL-1/versions/latest": true,
		"secret://projects/123456789012/secrets/s/versions/12":             true,
		"secret://projects/example.com:p/secrets/s/versions/1":             true,
		"SECRET://projects/p/secrets/s/versions/1":                         true,
		"secret://projects/p/secrets/s":                                    false,
		"secret://projects/p/secrets/s/versions/":                          false,
		"secret://projects/p/secrets/s/versions/1/":                        false,
		"secret://projects/p/secrets/../versions/1":                        false,
		"secret://projects/p/locations/l/secrets/s/versions/1":             false,
		"secret://hunter2":                       false,
		"secret:projects/p/secrets/s/versions/1": false,
	} {
		_, err := schemes.Parse(ref)
		if (err == nil) != ok {
			t.Errorf("%s: got %v, want it to be accepted: %t", ref, err, ok)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error tells what may be a secret: %v", err)
		}
	}
}

// TestClose: what is closed reads nothing and goes on with what it has.
func TestClose(t *testing.T) {
	m := newManager(t, &service{versions: map[string]version{resource + "1": {data: "key"}}})
	known, err1 := m.Parse("secret://" + resource + "1")
	other, err2 := m.Parse("secret://" + resource + "2")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if _, err := known.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	known.Refresh()
	if v, err := known.Get(t.Context()); err != nil || v.Reveal() != "key" {
		t.Errorf("got %v, want the last value", err)
	}
	if _, err := other.Get(t.Context()); err == nil || !strings.Contains(err.Error(), "the program is ending") {
		t.Errorf("got %v, want it to say that the program is ending", err)
	}
}
