package pods_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
)

const (
	typeProtobuf = "application/vnd.kubernetes.protobuf"
	typeJSON     = "application/json"
)

func TestMain(m *testing.M) {
	// Client-go pauses after an error by the time since the last one, and its first is of the real clock: to a test's
	// clock, which starts in 2000, that is a pause of decades.
	utilruntime.ErrorHandlers = utilruntime.ErrorHandlers[:1] //nolint:reassign // it is there to be set
	os.Exit(m.Run())
}

// apiServer serves pods as https://kubernetes.io/docs/reference/using-api/api-concepts/ says: list, watch from a resource
// version, the list as a stream, 410 for versions that are forgotten. It speaks over pipes, so that a test's time is its own.
type apiServer struct {
	t        *testing.T
	listener *pipes
	scheme   *runtime.Scheme

	mu       sync.Mutex
	pods     map[string]*corev1.Pod
	events   []change
	version  int           // of the newest change
	oldest   int           // version that can still be watched from
	changed  chan struct{} // closed by a change
	cut      chan struct{} // closed to end all watches
	requests []string      // "list" or "watch", and the answer's code

	// switches
	wire      string // content type of answers
	noStreams bool   // a server before 1.34, or with the feature off
	refuse    func(verb string) int
}

type change struct {
	version int
	kind    string
	pod     *corev1.Pod
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	a := &apiServer{
		t: t, listener: &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}, scheme: runtime.NewScheme(),
		pods: map[string]*corev1.Pod{}, version: 100, changed: make(chan struct{}), cut: make(chan struct{}), wire: typeProtobuf,
	}
	if err := corev1.AddToScheme(a.scheme); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: a}
	served := make(chan error, 1)
	go func() { served <- server.Serve(a.listener) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return a
}

func (a *apiServer) config() *rest.Config {
	return &rest.Config{Host: "http://api.test", BearerToken: "token", ContentConfig: rest.ContentConfig{}, Dial: a.listener.dial}
}

// set makes p the newest of its name; delete removes it.
func (a *apiServer) set(p *corev1.Pod)    { a.change("", p) }
func (a *apiServer) delete(p *corev1.Pod) { a.change("DELETED", p) }

func (a *apiServer) change(kind string, p *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := p.Namespace + "/" + p.Name
	a.version++
	p = p.DeepCopy()
	p.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
	p.ResourceVersion = strconv.Itoa(a.version)
	if kind == "" {
		kind = "ADDED"
		if a.pods[key] != nil {
			kind = "MODIFIED"
		}
		a.pods[key] = p
	} else {
		delete(a.pods, key)
	}
	a.events = append(a.events, change{a.version, kind, p})
	close(a.changed)
	a.changed = make(chan struct{})
}

// forget makes versions before the newest unknown, and endWatches ends what is under way.
func (a *apiServer) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	a.oldest = a.version
}

func (a *apiServer) endWatches() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.cut)
	a.cut = make(chan struct{})
}

// with changes a switch.
func (a *apiServer) with(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// served returns the requests since the last call.
func (a *apiServer) served() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.requests
	a.requests = nil
	return r
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.URL.Path != "/api/v1/pods" || q.Get("fieldSelector") != "spec.nodeName=node-1" {
		a.t.Errorf("got a request for more than the node's pods: %s", r.URL)
	}
	if got, want := r.Header.Get("Authorization"), "Bearer token"; got != want {
		a.t.Errorf("got authorization %q, want %q", got, want)
	}
	if got, want := r.Header.Get("Accept"), typeProtobuf+","+typeJSON; !strings.HasPrefix(got, want) {
		a.t.Errorf("got accept %q, want %q", got, want)
	}
	verb := "list"
	if q.Get("watch") != "" {
		verb = "watch"
	}
	a.mu.Lock()
	since, _ := strconv.Atoi(q.Get("resourceVersion"))
	code, stream, expired := 200, q.Get("sendInitialEvents") == "true", since != 0 && since < a.oldest
	switch {
	case a.refuse != nil && a.refuse(verb) != 0:
		code = a.refuse(verb)
	case stream && a.noStreams:
		code = 422
	case verb == "watch" && expired && since%2 == 0: // either way is allowed
		code = 410
	}
	a.requests = append(a.requests, verb+" "+strconv.Itoa(code))
	if code != 200 {
		a.mu.Unlock()
		w.Header().Set("Content-Type", a.wire)
		w.WriteHeader(code)
		w.Write(a.encode(status(code)))
		return
	}
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(a.version)}}
	for _, p := range a.pods {
		if p.Spec.NodeName == "node-1" {
			list.Items = append(list.Items, *p)
		}
	}
	slices.SortFunc(list.Items, func(x, y corev1.Pod) int { return strings.Compare(x.Name, y.Name) })
	now := a.version
	a.mu.Unlock()

	if verb == "list" {
		w.Header().Set("Content-Type", a.wire)
		w.Write(a.encode(list))
		return
	}
	w.Header().Set("Content-Type", a.wire+";stream=watch")
	switch {
	case expired:
		a.send(w, "ERROR", status(410))
		return
	case stream:
		for i := range list.Items {
			a.send(w, "ADDED", &list.Items[i])
		}
		a.send(w, "BOOKMARK", &corev1.Pod{
			TypeMeta:   metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(now), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}},
		})
		since = now
	default:
		w.(http.Flusher).Flush()
	}
	for {
		a.mu.Lock()
		changed, cut := a.changed, a.cut
		var news []change
		for _, e := range a.events {
			if e.version > since && e.pod.Spec.NodeName == "node-1" {
				news = append(news, e)
			}
		}
		since = a.version
		a.mu.Unlock()
		for _, e := range news {
			a.send(w, e.kind, e.pod)
		}
		select {
		case <-changed:
		case <-cut:
			panic(http.ErrAbortHandler) // closes the connection, too
		case <-r.Context().Done():
			return
		}
	}
}

func status(code int) *metav1.Status {
	s := &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Message: fmt.Sprint("answer ", code)}
	s.Reason = map[int]metav1.StatusReason{401: metav1.StatusReasonUnauthorized, 403: metav1.StatusReasonForbidden, 410: metav1.StatusReasonExpired, 422: metav1.StatusReasonInvalid, 500: metav1.StatusReasonInternalError}[code]
	return s
}

func (a *apiServer) encode(o runtime.Object) []byte {
	var b bytes.Buffer
	var err error
	if a.wire == typeJSON {
		err = json.NewEncoder(&b).Encode(o)
	} else {
		err = protobuf.NewSerializer(a.scheme, a.scheme).Encode(o, &b)
	}
	if err != nil {
		a.t.Error(err)
	}
	return b.Bytes()
}

func (a *apiServer) send(w http.ResponseWriter, kind string, o runtime.Object) {
	e := &metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: a.encode(o)}}
	if a.wire == typeJSON {
		b, err := json.Marshal(e)
		if err != nil {
			a.t.Error(err)
		}
		w.Write(b)
	} else {
		var b bytes.Buffer
		if err := protobuf.NewRawSerializer(a.scheme, a.scheme).Encode(e, &b); err != nil {
			a.t.Error(err)
		}
		protobuf.LengthDelimitedFramer.NewFrameWriter(w).Write(b.Bytes())
	}
	w.(http.Flusher).Flush()
}

// pipes is a network of one listener.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
	mu     sync.Mutex
	down   bool
}

func (p *pipes) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *pipes) dial(ctx context.Context, network, address string) (net.Conn, error) {
	p.mu.Lock()
	down := p.down
	p.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "api"} }
