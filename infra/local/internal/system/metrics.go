package system

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Addresses of what can be looked at.
type Addresses struct {
	PubSub, Functions, Agent string // host:port
	Token                    string // that the functions' /health asks for
	Control                  string // file with the environment of apssctl
	Apssctl                  string // the program
}

// Addresses returns where things are.
func (s *System) Addresses() Addresses {
	return Addresses{PubSub: s.Broker.Addr(), Functions: s.functionsAt, Agent: s.agentAddr,
		Token: s.token, Control: s.Config.ControlFile(), Apssctl: s.Config.Program("apssctl")}
}

// AgentCounts is what the agent says of itself. A restarted agent counts from zero.
type AgentCounts struct {
	Sensed, Sealed, Confirmed, Dropped int64 // events
	Spooled                            int64 // messages in the spool
}

// AgentCounts asks the agent; an error means that it does not answer.
func (s *System) AgentCounts(ctx context.Context) (c AgentCounts, err error) {
	fields := map[string]*int64{
		"apss_agent_events_total": &c.Sensed, "apss_agent_sealed_total": &c.Sealed, "apss_agent_confirmed_total": &c.Confirmed,
		"apss_agent_dropped_total": &c.Dropped, "apss_agent_spool_records": &c.Spooled,
	}
	err = s.get(ctx, "http://"+s.agentAddr+"/metrics", func(body io.Reader) error {
		return eachSample(body, func(name string, value float64) {
			if field := fields[name]; field != nil {
				*field += int64(value)
			}
		})
	})
	return c, err
}

// eachSample reads the Prometheus text format, labels left out: https://prometheus.io/docs/instrumenting/exposition_formats/
func eachSample(r io.Reader, see func(name string, value float64)) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest := line, ""
		if i := strings.IndexAny(line, "{ "); i >= 0 {
			name, rest = line[:i], line[i:]
		}
		if strings.HasPrefix(rest, "{") {
			end := strings.LastIndexByte(rest, '}')
			if end < 0 {
				return cmp.Or(lines.Err(), fmt.Errorf("reading metrics: %q has no end of its labels", name))
			}
			rest = rest[end+1:]
		}
		values := strings.Fields(rest)
		if len(values) == 0 {
			return cmp.Or(lines.Err(), fmt.Errorf("reading metrics: %q has no value", name)) // the last line, when it broke off
		}
		value, err := strconv.ParseFloat(values[0], 64)
		if err != nil {
			return fmt.Errorf("reading metrics: %q: %w", name, err)
		}
		see(name, value)
	}
	return lines.Err()
}

// maxAnswer bounds what is read of our own programs' answers.
const maxAnswer = 4 << 20

// askTimeout bounds a question to a program on this machine.
const askTimeout = 2 * time.Second

func (s *System) get(ctx context.Context, url string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body := io.LimitReader(resp.Body, maxAnswer)
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(body, 500))
		return errors.New(resp.Status + ": " + strings.TrimSpace(string(text)))
	}
	if read == nil {
		return nil
	}
	return read(body)
}
