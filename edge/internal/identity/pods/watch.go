package pods

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/oauth2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/transport"
	"k8s.io/klog/v2"
)

// listTimeout bounds a list; client-go has no bound of its own. The API server's is 60 s (--request-timeout).
const listTimeout = time.Minute

// Config says whose pods are watched.
type Config struct {
	// Node is the name that the node has in the cluster.
	Node string
	// API is how the API server is reached; nil: as a pod does it, with its service account.
	API *rest.Config
	// Dial opens the connections; nil: as client-go does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// ReadFile reads the service account's token; nil: as client-go does.
	ReadFile func(path string) ([]byte, error)
	Logger   *slog.Logger
}

// New returns the directory of a node. It never fails: a directory without access has [StateOff] and the reason.
func New(c Config) *Directory {
	d := newDirectory(c.Logger)
	d.status = Status{State: StateStarting}
	w, err := newWatcher(c, d)
	if err != nil {
		d.status = Status{State: StateOff, Reason: err.Error()}
		return d
	}
	d.watch = w
	return d
}

type watcher struct {
	reflector *cache.Reflector
	log       *slog.Logger
}

func newWatcher(c Config, d *Directory) (*watcher, error) {
	if c.Node == "" {
		return nil, errors.New("NODE_NAME is not set: the pods of which node?")
	}
	api := c.API
	if api == nil {
		var err error
		if api, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("not in a cluster: KUBERNETES_SERVICE_HOST is not set")
		} else if err != nil {
			return nil, fmt.Errorf("no service account: %w", err)
		}
	}
	api = rest.CopyConfig(api)
	if c.Dial != nil {
		api.Dial = c.Dial
	}
	if path := api.BearerTokenFile; path != "" && c.ReadFile != nil {
		api.BearerToken, api.BearerTokenFile = "", "" // else it would be read again by client-go
		api.Wrap(transport.ResettableTokenSourceWrapTransport(transport.NewCachedTokenSource(&tokenFile{path, c.ReadFile})))
	}
	api.APIPath, api.GroupVersion, api.UserAgent = "/api", &coreV1, "apss-agent"
	api.NegotiatedSerializer = serializer.NewCodecFactory(newScheme()).WithoutConversion()
	api.ContentType = runtime.ContentTypeProtobuf
	api.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	api.WarningHandler = rest.NoWarnings{}
	client, err := rest.RESTClientFor(api)
	if err != nil {
		return nil, fmt.Errorf("reaching the API server: %w", err)
	}
	ours := fields.OneTermEqualSelector("spec.nodeName", c.Node)
	source := &observed{
		ListWatch: cache.NewListWatchFromClient(client, "pods", metav1.NamespaceAll, ours),
		note:      d.note,
	}
	return &watcher{
		reflector: cache.NewReflectorWithOptions(source, &Pod{}, (*store)(d), cache.ReflectorOptions{Name: "pods", TypeDescription: "pods"}),
		log:       c.Logger,
	}, nil
}

// run lists and watches until ctx ends. What client-go would log is for who debugs it: the directory says what it means.
func (w *watcher) run(ctx context.Context) {
	w.reflector.RunWithContext(klog.NewContext(ctx, logr.FromSlogHandler(quiet{w.log.Handler()})))
}

// tokenFile is a service account's token, which the kubelet replaces in time.
type tokenFile struct {
	path string
	read func(string) ([]byte, error)
}

// tokenTTL is how long a token is used before its file is read again: as long as client-go does.
const tokenTTL = time.Minute

// Token implements [oauth2.TokenSource].
func (t *tokenFile) Token() (*oauth2.Token, error) {
	b, err := t.read(t.path)
	if err != nil {
		return nil, fmt.Errorf("reading the service account's token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return nil, fmt.Errorf("the service account's token %s is empty", t.path)
	}
	return &oauth2.Token{AccessToken: token, Expiry: time.Now().Add(tokenTTL)}, nil
}

// observed tells note how each request of a reflector ended.
type observed struct {
	*cache.ListWatch
	note func(error)
}

// ListWithContext implements [cache.ListerWithContext]. Its success is the store's to see.
func (o *observed) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list, err := o.ListWatch.ListWithContext(ctx, options)
	if err != nil {
		o.note(err)
	}
	return list, err
}

// WatchWithContext implements [cache.WatcherWithContext].
func (o *observed) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	w, err := o.ListWatch.WatchWithContext(ctx, options)
	streamed := options.SendInitialEvents != nil // instead of a list; the reflector lists when the server refuses
	if !streamed || utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err) {
		o.note(err)
	}
	return w, err
}

// quiet is a handler that takes everything for debugging.
type quiet struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements [slog.Handler]. Logr hands it errors without asking Enabled.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if r.Level = slog.LevelDebug; !q.Enabled(ctx, r.Level) {
		return nil
	}
	return q.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements [slog.Handler].
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
