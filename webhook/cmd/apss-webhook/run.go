package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/telemetry"
	"github.com/apss-sensor/apss/webhook/internal/admission"
	"github.com/apss-sensor/apss/webhook/internal/audit"
	"github.com/apss-sensor/apss/webhook/internal/certs"
	"github.com/apss-sensor/apss/webhook/internal/cluster"
	"github.com/apss-sensor/apss/webhook/internal/decide"
	"github.com/apss-sensor/apss/webhook/internal/inject"
	"github.com/apss-sensor/apss/webhook/internal/kube"
	"github.com/apss-sensor/apss/webhook/internal/reconcile"
)

// keeper keeps certificates.
type keeper interface {
	Run(ctx context.Context)
	Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Served(path string) bool
	Ready() error
	Expiry() map[string]time.Time
}

// program is the webhook with what it runs on.
type program struct {
	settings *settings
	tel      *telemetry.Telemetry
	client   *kube.Client
	cluster  *cluster.Cluster
	certs    keeper
	audit    *audit.Audit
	injector atomic.Pointer[inject.Injector]
	trusting atomic.Bool // the sidecars' authorities are known
	ending   atomic.Bool
}

// run runs the webhook until ctx ends.
func run(ctx context.Context, s *settings, stdout, stderr io.Writer) (err error) {
	tel, err := telemetry.Start(ctx, telemetry.Config{Service: "apss-webhook", Version: version, Project: s.Project, Level: s.LogLevel, Log: stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tel.Shutdown(ctx)) }()
	client, err := kube.New(nil)
	if err != nil {
		return err
	}
	publisher, err := s.publisher(ctx, stdout)
	if err != nil {
		return err
	}
	if c, ok := publisher.(io.Closer); ok {
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	p, err := build(s, client, tel, publisher, time.Now)
	if err != nil {
		return err
	}
	listen := func(key, address string) (net.Listener, error) {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("listening (%s is another address): %w", key, err)
		}
		return l, nil
	}
	reviews, err := listen("HTTPS_ADDR", s.HTTPSAddr)
	if err != nil {
		return err
	}
	defer reviews.Close()
	probes, err := listen("HTTP_ADDR", s.HTTPAddr)
	if err != nil {
		return err
	}
	defer probes.Close()
	return p.serve(ctx, reviews, probes)
}

// build makes a program that does nothing before serve.
func build(s *settings, client *kube.Client, tel *telemetry.Telemetry, publisher audit.Publisher, now func() time.Time) (p *program, err error) {
	p = &program{settings: s, tel: tel, client: client, cluster: cluster.New(client, tel.Logger())}
	if err := p.inject(nil); err != nil {
		return nil, err
	}
	if p.certs, err = p.keeper(now); err != nil {
		return nil, err
	}
	p.audit = audit.New(audit.Config{
		Cluster: s.Cluster, AgentID: s.Cluster + "/" + s.Pod, Queue: s.Queue, Publisher: publisher, Log: slog.New(telemetry.Limit(tel.Logger().Handler(), time.Minute)),
		Dropped:   tel.Counter("apss.events.dropped", "{event}", "Events that found no room or could never be published."),
		Published: tel.Counter("apss.events.published", "{event}", "Events that were published."),
	})
	return p, nil
}

// publisher is where events go, as the settings want it.
func (s *settings) publisher(ctx context.Context, stdout io.Writer) (audit.Publisher, error) {
	switch s.Publisher {
	case "pubsub":
		return audit.NewPubSub(ctx, s.Project, s.EventsTopic)
	case "stdout":
		return audit.Lines{W: stdout}, nil
	}
	return audit.Nowhere{}, nil
}

// reconciler returns what looks for pods without an agent.
func (p *program) reconciler() *reconcile.Reconciler {
	s, rules := p.settings, p.settings.decide()
	evictions := func(result string) *telemetry.Counter {
		return p.tel.Counter("apss.coverage.evictions", "{pod}", "Pods without an agent that were to be restarted.", attribute.String("result", result))
	}
	r := reconcile.New(reconcile.Config{
		Client: p.client, Ready: p.ready, Namespaces: p.cluster.Each, Every: s.Coverage, Restart: s.Restart, Tell: p.audit.Tell, Log: p.tel.Logger(),
		Injected: func(ns decide.Namespace) bool { return decide.InNamespace(ns, &rules).Reason == decide.Injected },
		Pod: func(object []byte, ns decide.Namespace) (decide.Decision, error) {
			d, _, err := p.injector.Load().Pod(object, ns, p.cluster.Cluster())
			return d, err
		},
		Evicted: evictions("evicted"), Budgeted: evictions("budget"),
		Failed: p.tel.Counter("apss.coverage.failures", "{look}", "Looks for pods without an agent that did not come to their end."),
	})
	for state, read := range map[string]func(reconcile.Counts) int64{
		"covered": func(c reconcile.Counts) int64 { return c.Covered }, "differs": func(c reconcile.Counts) int64 { return c.Differs },
		"missing": func(c reconcile.Counts) int64 { return c.Missing }, "excused": func(c reconcile.Counts) int64 { return c.Excused },
	} {
		p.tel.Gauge("apss.coverage.pods", "{pod}", "Pods of injected namespaces at the last look, by whether they have the agent.",
			func() int64 { return read(r.Counts()) }, attribute.String("state", state))
	}
	return r
}

// inject makes the injector whose sidecars trust the authorities in bundle.
func (p *program) inject(bundle []byte) error {
	in, err := inject.New(p.settings.decide(), p.settings.sidecar(string(bundle)), version)
	if err != nil {
		return err
	}
	p.injector.Store(in)
	return nil
}

// keeper returns what keeps the certificates, as the settings want it.
func (p *program) keeper(now func() time.Time) (keeper, error) {
	s, log := p.settings, p.tel.Logger()
	changed := func(bundle []byte) {
		if err := p.inject(bundle); err != nil {
			log.Error("sidecars go on to trust the last authorities", "error", err.Error())
			return
		}
		p.trusting.Store(true)
	}
	if s.Certs == "files" {
		p.trusting.Store(true)
		return certs.NewFiles(certs.FilesConfig{Cert: s.CertFile, Key: s.KeyFile, CA: s.RelayCA, Paths: s.PathsFile, Changed: changed, Log: log})
	}
	c := certs.SelfConfig{
		Store:  &certs.API{Client: p.client, Namespace: s.Namespace, Webhook: s.Configuration, Pod: s.Pod},
		Secret: s.Secret, Names: s.names(), RelaySecret: s.RelaySecret, RelayNames: s.relayNames(), Grace: s.Grace, Changed: changed, Log: log, Now: now,
	}
	if c.RelaySecret == off {
		c.RelaySecret = ""
	}
	return certs.NewSelf(c), nil
}

// ready returns nil when the cluster is known and the sidecars' authorities are: nothing is injected before.
func (p *program) ready() error {
	if !p.trusting.Load() {
		return errors.New("there is no authority yet that sidecars could trust")
	}
	return p.cluster.Ready()
}

// serve serves until ctx ends, then drains.
func (p *program) serve(ctx context.Context, reviews, probes net.Listener) error {
	s, log := p.settings, p.tel.Logger()
	handler, err := admission.New(admission.Config{
		Path: p.certs.Served, Injector: p.injector.Load, Ready: p.ready, Namespace: p.cluster.Namespace, Cluster: p.cluster.Cluster,
		InFlight: s.InFlight, Log: log, Meter: p.tel.Meter(), Observe: p.observe(),
	})
	if err != nil {
		return err
	}
	for name, check := range map[string]func() error{
		"injection": p.ready, "certificates": p.certs.Ready,
		"draining": func() error {
			if p.ending.Load() {
				return errors.New("the end was asked for")
			}
			return nil
		},
	} {
		p.tel.Ready(name, check)
	}
	for _, name := range []string{"webhook", "authority", "relay"} {
		p.tel.Gauge("apss.certificate.expiry", "s", "When a certificate ends, in seconds since 1970; 0 when there is none.", func() int64 {
			if t := p.certs.Expiry()[name]; !t.IsZero() {
				return t.Unix()
			}
			return 0
		}, attribute.String("certificate", name))
	}
	// What works beside the reviews goes on until the last of them is answered.
	beside, stop := context.WithCancel(context.WithoutCancel(ctx))
	var working sync.WaitGroup
	defer working.Wait()
	defer stop()
	working.Go(func() { p.cluster.Run(beside) })
	working.Go(func() { p.certs.Run(beside) })
	working.Go(func() { p.audit.Run(beside, s.Drain) })
	reconciler := p.reconciler()
	working.Go(func() { reconciler.Run(ctx) }) // who goes tells no more: it might not come to it
	probing := make(chan error, 1)
	go func() { probing <- httpx.Serve(beside, probes, p.tel.Handler(), time.Second) }()

	serving, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	working.Go(func() {
		select {
		case <-ctx.Done():
		case <-serving.Done():
			return
		}
		p.ending.Store(true)
		log.Info("draining", "delay", s.Delay.String())
		wait := time.NewTimer(s.Delay)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-serving.Done():
		}
		end()
	})
	closed := p.tel.Counter("apss.admission.connections.closed", "{connection}", "Connections that were closed because there were too many, of one address or in all.")
	log.Info("the webhook serves", "version", version, "address", reviews.Addr().String(), "certs", s.Certs)
	err = httpx.Server{
		Handler: p.going(handler), Grace: s.Drain, Log: log,
		// The API server waits 30 s at most (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#timeouts).
		ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
	}.Serve(serving, tls.NewListener(&httpx.Bound{Listener: reviews, Total: s.Connections, Each: s.EachConnections, Closed: func() { closed.Add(1) }}, &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: p.certs.Certificate, NextProtos: []string{"http/1.1"},
	}))
	end()
	stop()
	return errors.Join(err, <-probing)
}

// observe is nil where nobody wants to know.
func (p *program) observe() func(*admission.Request, *decide.Decision) {
	if p.settings.Publisher == off {
		return nil
	}
	return p.audit.Observe
}

// going tells clients, once the end was asked for, to open their next connection elsewhere: when we close, none is in use,
// and no review meets a closing connection.
func (p *program) going(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.ending.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// hostOf returns the host of a URL that Validate has seen.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
