package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"k8s.io/client-go/rest"

	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/telemetry"
	"github.com/apss-sensor/apss/webhook/internal/admission"
	"github.com/apss-sensor/apss/webhook/internal/certs"
	"github.com/apss-sensor/apss/webhook/internal/cluster"
	"github.com/apss-sensor/apss/webhook/internal/inject"
	"github.com/apss-sensor/apss/webhook/internal/kube"
)

// keeper keeps certificates.
type keeper interface {
	Run(ctx context.Context)
	Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
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
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		err = errors.Join(err, tel.Shutdown(end))
	}()
	var config *rest.Config // as a pod does it
	client, err := kube.New(config)
	if err != nil {
		return err
	}
	p := &program{settings: s, tel: tel, client: client, cluster: cluster.New(client, tel.Logger())}
	if err := p.inject(nil); err != nil {
		return err
	}
	if p.certs, err = p.keeper(); err != nil {
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
func (p *program) keeper() (keeper, error) {
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
		return certs.NewFiles(certs.FilesConfig{Cert: s.CertFile, Key: s.KeyFile, CA: s.RelayCA, Changed: changed, Log: log})
	}
	c := certs.SelfConfig{
		Store:  &certs.API{Client: p.client, Namespace: s.Namespace, Webhook: s.Configuration},
		Secret: s.Secret, Names: s.names(), RelaySecret: s.RelaySecret, RelayNames: s.relayNames(), Grace: s.Grace, Changed: changed, Log: log,
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
		Injector: p.injector.Load, Ready: p.ready, Namespace: p.cluster.Namespace, Cluster: p.cluster.Cluster,
		InFlight: s.InFlight, Log: log, Meter: p.tel.Meter(),
	})
	if err != nil {
		return err
	}
	for name, check := range map[string]func() error{
		"cluster": p.cluster.Ready, "certificates": p.certs.Ready,
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
	probing := make(chan error, 1)
	go func() { probing <- httpx.Serve(beside, probes, p.tel.Handler(), time.Second) }()

	mux := http.NewServeMux()
	mux.Handle("/mutate", p.going(handler))
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
	log.Info("the webhook serves", "version", version, "address", reviews.Addr().String(), "certs", s.Certs)
	err = httpx.Server{
		Handler: mux, Grace: s.Drain, Log: log,
		// The API server waits 30 s at most (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#timeouts).
		ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
	}.Serve(serving, tls.NewListener(reviews, &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: p.certs.Certificate, NextProtos: []string{"http/1.1"},
	}))
	end()
	stop()
	return errors.Join(err, <-probing)
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
