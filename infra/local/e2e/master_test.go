package e2e

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// master is the intruder's machine: implants in pods call it and do what it says; see witness/obey.go.
type master struct {
	*cluster
	addr string // as pods reach it

	mu       sync.Mutex
	implants map[string]*implant // by their pods
	shells   []net.Conn          // that pods gave away
}

// implant is what obeys in one pod. It may be used concurrently: it gets one order after the other.
type implant struct {
	called time.Time

	mu    sync.Mutex
	conn  net.Conn
	lines *bufio.Scanner
}

// master starts listening.
func (c *cluster) master() *master {
	c.t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(c.hostAddress(), "0"))
	if err != nil {
		c.t.Fatal(err)
	}
	m := &master{cluster: c, addr: l.Addr().String(), implants: map[string]*implant{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { m.accept(conn) })
		}
	})
	c.t.Cleanup(func() {
		_ = l.Close()
		m.mu.Lock()
		for _, i := range m.implants {
			_ = i.conn.Close()
		}
		for _, s := range m.shells {
			_ = s.Close()
		}
		m.mu.Unlock()
		serving.Wait()
	})
	return m
}

// accept takes who calls: an implant says at once which pod it is, a shell says nothing.
func (m *master) accept(conn net.Conn) {
	now := time.Now()
	_ = conn.SetReadDeadline(now.Add(time.Second))
	i := &implant{called: now, conn: conn, lines: bufio.NewScanner(conn)}
	said := i.lines.Scan()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !said {
		m.shells = append(m.shells, conn)
		return
	}
	m.implants[i.lines.Text()] = i
}

// caught waits for the implant of a pod.
func (m *master) caught(pod string) *implant {
	m.t.Helper()
	var i *implant
	m.await("the implant in "+pod, func(context.Context) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if i = m.implants[pod]; i == nil {
			return fmt.Errorf("%d others called", len(m.implants))
		}
		return nil
	})
	return i
}

// order has a deed done, and returns when it was asked for.
func (i *implant) order(t *testing.T, deed string, number any) time.Time {
	t.Helper()
	at, err := i.tell(deed, number)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (i *implant) tell(deed string, number any) (time.Time, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := time.Now()
	if err := i.conn.SetDeadline(at.Add(within)); err != nil {
		return at, err
	}
	if _, err := fmt.Fprintln(i.conn, deed, number); err != nil {
		return at, fmt.Errorf("ordering %s %v: %w", deed, number, err)
	}
	if !i.lines.Scan() {
		return at, fmt.Errorf("ordering %s %v: the connection ended: %w", deed, number, cmp.Or(i.lines.Err(), io.EOF))
	}
	if answer := i.lines.Text(); answer != "" {
		return at, fmt.Errorf("the intruder could not do %s %v: %s", deed, number, answer)
	}
	return at, nil
}

// breakIn deploys a web server that was broken into.
func (m *master) breakIn(c *cluster, name string) {
	c.t.Helper()
	if _, err := c.client.AppsV1().Deployments(c.namespace).Create(c.patience(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Selector: selects(name), Template: m.victim(c, name)},
	}, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// victim is the template of its pods. They have a token, as most pods have.
func (m *master) victim(c *cluster, name string) corev1.PodTemplateSpec {
	template := c.template(name, corev1.RestartPolicyAlways, "/bin/nginx", "obey", m.addr)
	spec, yes := &template.Spec, true
	spec.AutomountServiceAccountToken = &yes
	spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(1000))}
	for name, path := range map[string]string{"keys": "/home/app/.ssh", "jobs": "/etc/cron.d", "temporary": "/tmp"} {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		spec.Containers[0].VolumeMounts = append(spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
	}
	return template
}
