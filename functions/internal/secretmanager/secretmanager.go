// Package secretmanager reads secrets from Google Cloud's Secret Manager: references of the form
// secret://projects/P/secrets/S/versions/V, where V is a number, an alias or latest.
//
// A secret is read when it is first asked for and kept for about five minutes, so that a rotated one heals by itself.
// However many ask, one call is under way for it. What is read is checked by its CRC32C.
//
// When reading fails, the last good value stands and the log says so: for a day when the service cannot be reached, for
// an hour when it says that there is no such secret for us. A mistake has an hour to be mended, and a secret that was
// withdrawn is not used for longer than that.
package secretmanager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"time"

	api "cloud.google.com/go/secretmanager/apiv1"
	"cloud.google.com/go/secretmanager/apiv1/secretmanagerpb"
	"google.golang.org/api/option"

	"github.com/apss-sensor/apss/shared/secret"
)

// Scheme is that of the references.
const Scheme = "secret"

// Manager is the way to Secret Manager. Safe for concurrent use.
type Manager struct {
	log     *slog.Logger
	options []option.ClientOption
	ctx     context.Context //nolint:containedctx // of the calls, which outlive those who ask; ends with Close
	cancel  context.CancelFunc
	calls   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	client  *api.Client
	sources map[string]*source // by resource name
}

// New returns a manager. It connects with the first secret that is asked for.
func New(log *slog.Logger, options ...option.ClientOption) *Manager {
	ctx, cancel := context.WithCancel(context.Background())
	return &Manager{log: log, options: options, ctx: ctx, cancel: cancel, sources: map[string]*source{}}
}

// Close ends what is under way and waits for it. Nothing is read from then on.
func (m *Manager) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.calls.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		return nil
	}
	err := m.client.Close()
	m.client = nil
	return err
}

// pattern is a reference. Names: cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets/create (a secret's
// id), .../projects.secrets#Secret.version_aliases (63 characters), cloud.google.com/resource-manager/docs/creating-managing-projects
// (a project's id or number; those of domains have a colon).
var pattern = regexp.MustCompile(`^projects/([a-z0-9.-]+:)?[a-z0-9-]{1,63}/secrets/[A-Za-z0-9_-]{1,255}/versions/[A-Za-z0-9_-]{1,63}$`)

// Parse returns the source that ref names. References to the same secret have one source.
func (m *Manager) Parse(ref string) (secret.Source, error) {
	_, name, _ := strings.Cut(strings.TrimSpace(ref), "://")
	if !pattern.MatchString(name) {
		return nil, errors.New("secret:// is not followed by a version of a secret; write it like secret://projects/<project>/secrets/<secret>/versions/latest")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sources[name]
	if s == nil {
		s = &source{name: name, log: m.log, start: m.start, fetch: func(ctx context.Context) (secret.Value, error) { return m.access(ctx, name) }}
		m.sources[name] = s
	}
	return s, nil
}

// start runs f in the background, with a context that ends with the manager. It reports false after Close.
func (m *Manager) start(f func(context.Context)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.calls.Go(func() {
		ctx, cancel := context.WithTimeout(m.ctx, callTimeout)
		defer cancel()
		f(ctx)
	})
	return true
}

// access reads a version.
func (m *Manager) access(ctx context.Context, name string) (secret.Value, error) {
	c, err := m.connection()
	if err != nil {
		return secret.Value{}, err
	}
	answer, err := c.AccessSecretVersion(ctx, &secretmanagerpb.AccessSecretVersionRequest{Name: name})
	if err != nil {
		return secret.Value{}, err
	}
	payload := answer.GetPayload()
	// The service stores a checksum of each version, https://cloud.google.com/secret-manager/docs/data-integrity.
	if sum := int64(crc32.Checksum(payload.GetData(), crc32.MakeTable(crc32.Castagnoli))); payload.DataCrc32C != nil && payload.GetDataCrc32C() != sum {
		return secret.Value{}, fmt.Errorf("the payload is damaged: its CRC32C is %d, the service says %d", sum, payload.GetDataCrc32C())
	}
	// What was stored from a file or with echo ends with a line end that is none of the secret.
	data := bytes.TrimRight(payload.GetData(), "\r\n")
	if len(data) == 0 {
		return secret.Value{}, errors.New("the payload is empty")
	}
	return secret.New(string(data)), nil
}

// connection returns the client, made with the first call: credentials may be missing where no secret is read.
func (m *Manager) connection() (*api.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		return m.client, nil
	}
	// The client keeps the context for its credentials: it must not be one call's.
	c, err := api.NewClient(m.ctx, m.options...)
	if err != nil {
		return nil, fmt.Errorf("connecting to Secret Manager: %w", err)
	}
	m.client = c
	return c, nil
}

// The times of a source.
const (
	lifetime    = 5 * time.Minute  // of a value until it is read anew, a fifth more or less
	callTimeout = 5 * time.Second  // of one read
	retryStale  = 30 * time.Second // between tries while the last value stands, a fifth more or less
	retryNone   = time.Second      // between tries while there is none, likewise
	refreshGap  = 30 * time.Second // between two forced reads of a secret
	staleDown   = 24 * time.Hour   // how old a value may be that stands because the service cannot be reached
	staleDenied = time.Hour        // likewise, because the service refuses
)
