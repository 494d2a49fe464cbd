package faults_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/apss-sensor/apss/infra/local/internal/system"
)

// redis is the real server, in memory, behind a port that stays while it is killed and comes back.
type redis struct {
	t      *testing.T
	socket string
	addr   string
	cmd    *exec.Cmd
}

const redisServer = "redis-server"

func startRedis(t *testing.T) *redis {
	t.Helper()
	if _, err := exec.LookPath(redisServer); err != nil {
		t.Skipf("SKIPPED: there is no %s here: apt-get install %s lets this row run", redisServer, redisServer)
	}
	dir, err := os.MkdirTemp("", "redis") //nolint:usetesting // t.TempDir's names may be too long for a socket's (108 bytes, unix(7))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &redis{t: t, socket: filepath.Join(dir, "s"), addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() { s.lead(l, &wg) })
	t.Cleanup(func() {
		s.kill()
		_ = l.Close()
		wg.Wait()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.start()
	return s
}

// lead carries connections to the server, as long as there is one.
func (s *redis) lead(l net.Listener, wg *sync.WaitGroup) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("unix", s.socket)
		if err != nil {
			_ = in.Close()
			continue
		}
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			wg.Go(func() {
				_, _ = io.Copy(way[0], way[1])
				_, _ = in.Close(), out.Close()
			})
		}
	}
}

func (s *redis) start() {
	s.t.Helper()
	s.cmd = exec.Command(redisServer, "--port", "0", "--unixsocket", s.socket, "--dir", filepath.Dir(s.socket), "--save", "", "--appendonly", "no")
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", s.socket)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(limit) {
			s.t.Fatalf("Redis does not come up: %v", err)
		}
	}
}

// kill ends the server with all that it knew.
func (s *redis) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // killed, as meant
		s.cmd = nil
	}
}

// withRedis lets the functions keep their state on a Redis server.
func withRedis(_ *world, c *system.Config, a *all) {
	a.redis = startRedis(a.t)
	c.Env = append(c.Env, "STATE_STORE=redis://"+a.redis.addr+"/0")
}

// withRedisAndLittleTime is for a kill: what the dead instance had begun is left alone for the time that it would have had
// for it, here some seconds.
func withRedisAndLittleTime(w *world, c *system.Config, a *all) {
	withRedis(w, c, a)
	c.CallTimeout = 2 * time.Second
	c.Env = append(c.Env, "DEAD_LETTERS_TIMEOUT=2s", "FORWARD_TIMEOUT=7s")
}

// stateless: Redis is killed under load and comes back without what it knew.
func stateless(_ *world, r *rig, a *all) {
	r.publish(meanwhile, r.fresh)
	a.redis.kill()
	r.publish(meanwhile, r.fresh)
	r.whole()
	r.logged("the state store is down; going on with memory")
	a.redis.start()
	r.logged("the state store is back")
	r.publish(meanwhile, r.fresh)
}

// logged waits until the functions have said something.
func (r *rig) logged(text string) {
	r.t.Helper()
	r.until("the functions say: "+text, func() bool {
		log, err := os.ReadFile(r.Config.LogFile())
		return err == nil && bytes.Contains(log, []byte(text))
	})
}
