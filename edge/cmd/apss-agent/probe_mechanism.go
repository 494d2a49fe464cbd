package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/apss-sensor/apss/edge/internal/identity/pods"
	"github.com/apss-sensor/apss/edge/internal/source/network/netns"
	"github.com/apss-sensor/apss/edge/internal/source/network/sockdiag"
	"github.com/apss-sensor/apss/edge/internal/source/process"
	"github.com/apss-sensor/apss/edge/internal/source/process/connector"
	"github.com/apss-sensor/apss/edge/internal/source/process/opens"
	"github.com/apss-sensor/apss/edge/internal/tier"
)

// state is what a mechanism is good for here.
type state string

const (
	inUse     state = "in use"
	available state = "available" // it works; a better one is in use
	refused   state = "refused"
)

// mechanism is a way of a sensor's to see, and what came of trying it.
type mechanism struct {
	Sensor string `json:"sensor"`
	Name   string `json:"name"`
	State  state  `json:"state"`
	Detail string `json:"detail,omitempty"`
	Help   string `json:"help,omitempty"` // what to do about a refusal
}

// mechanisms tries every mechanism of every sensor, but the pods', whose state is known.
func mechanisms(s *settings, v tier.View, directory pods.Status) []mechanism {
	pids, _ := tier.Processes(s.Proc) // what else is not readable then says so
	return slices.Concat(
		best("process", ordered(s.Mechanisms, tryConnector(s.Proc), tryOpens(s.Proc, pids),
			mechanism{Name: process.Polling, Detail: "every " + s.ProcInterval.String()})...),
		best("file", tryInotify(s.Proc, pids)),
		best("network", trySockDiag(), tryProcNet(s.Proc)),
		[]mechanism{tryNamespaces(s.Proc, pids, v)},
		best("identity", tryCgroup(s.Proc)),
		best("identity", podsOf(s, directory)),
	)
}

// ordered returns the mechanisms in the order in which names allow them to be tried, those that are not among them last.
// Polling is the last resort, named or not.
func ordered(names []string, all ...mechanism) []mechanism {
	if len(names) == 0 {
		return all
	}
	rank := func(m mechanism) int {
		if i := slices.Index(names, m.Name); i >= 0 {
			return i
		}
		return len(names)
	}
	for i := range all {
		if m := &all[i]; rank(*m) == len(names) && m.Name != process.Polling && m.State != refused {
			*m = no(m.Name, errNotNamed, "name it in PROC_MECHANISMS")
		}
	}
	slices.SortStableFunc(all, func(a, b mechanism) int { return cmp.Compare(rank(a), rank(b)) })
	return all
}

var errNotNamed = errors.New("PROC_MECHANISMS leaves it out")

// best names the first that was not refused the one in use.
func best(sensor string, all ...mechanism) []mechanism {
	found := false
	for i := range all {
		m := &all[i]
		m.Sensor = sensor
		switch {
		case m.State == refused:
		case found:
			m.State = available
		default:
			m.State, found = inUse, true
		}
	}
	return all
}

func no(name string, err error, help string) mechanism {
	return mechanism{Name: name, State: refused, Detail: err.Error(), Help: help}
}

func tryConnector(proc string) mechanism {
	const name = "connector"
	if filepath.Clean(proc) != "/proc" {
		return no(name, errors.New("HOST_PROC is not /proc: the kernel's pids are not those it shows"), "use hostPID instead of a mount of the host's procfs")
	}
	c, err := connector.Dial()
	if err != nil {
		return no(name, err, "a node's agent needs hostPID and hostNetwork, and CAP_NET_ADMIN before Linux 6.6")
	}
	_ = c.Close()
	return mechanism{Name: name, Detail: "the kernel announces every fork, exec and exit"}
}

func tryOpens(proc string, pids []int32) mechanism {
	const name = "opens"
	w, err := opens.New(proc)
	if err != nil {
		return no(name, err, "raise fs.inotify.max_user_instances on the node")
	}
	defer func() { _ = w.Close() }()
	w.Sync(pids)
	st := w.Stats()
	detail := fmt.Sprintf("%d folders of executables watched in %d mount namespaces; those of %d processes are hidden", st.Watches, st.Namespaces, st.Hidden)
	if st.Refused > 0 {
		detail += fmt.Sprintf("; %d watches refused: %s", st.Refused, st.Reason)
	}
	if st.Watches == 0 {
		return no(name, errors.New(detail), "share the application's user, or add CAP_SYS_PTRACE")
	}
	return mechanism{Name: name, Detail: detail}
}

func tryInotify(proc string, pids []int32) mechanism {
	const name = "inotify"
	instances, watches := inotifyUsed(proc, pids)
	detail := fmt.Sprintf("%d of %s watches, %d of %s instances of this user taken, queues of %s events", watches,
		inotifyLimit(proc, "max_user_watches"), instances, inotifyLimit(proc, "max_user_instances"), inotifyLimit(proc, "max_queued_events"))
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return no(name, fmt.Errorf("%w: %s", err, detail), "raise fs.inotify.max_user_instances on the node; files are polled until then")
	}
	defer func() { _ = unix.Close(fd) }()
	if _, err := unix.InotifyAddWatch(fd, "/", unix.IN_DELETE_SELF); err != nil {
		return no(name, fmt.Errorf("%w: %s", err, detail), "raise fs.inotify.max_user_watches on the node; files are polled until then")
	}
	return mechanism{Name: name, Detail: detail}
}

// inotifyLimit reads a limit, which is of each user in each user namespace: inotify(7).
func inotifyLimit(proc, name string) string {
	limit, err := os.ReadFile(filepath.Join(proc, "sys/fs/inotify", name))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(limit))
}

// inotifyUsed counts what the processes of the own user hold, as far as they let it be seen.
func inotifyUsed(proc string, pids []int32) (instances, watches int) {
	for _, pid := range pids {
		dir := filepath.Join(proc, strconv.Itoa(int(pid)))
		var owner unix.Stat_t
		if unix.Stat(dir, &owner) != nil || int(owner.Uid) != os.Geteuid() {
			continue
		}
		files, _ := os.ReadDir(filepath.Join(dir, "fd")) // what may be read counts
		for _, f := range files {
			if to, err := os.Readlink(filepath.Join(dir, "fd", f.Name())); err != nil || to != "anon_inode:inotify" {
				continue
			}
			instances++
			info, err := os.ReadFile(filepath.Join(dir, "fdinfo", f.Name()))
			if err == nil {
				watches += bytes.Count(info, []byte("inotify wd:"))
			}
		}
	}
	return instances, watches
}

func trySockDiag() mechanism {
	const name = "sock_diag"
	closes, err := sockdiag.Listen()
	if err != nil {
		return no(name, err, "allow AF_NETLINK in the seccomp profile; connections shorter than a look are missed until then")
	}
	defer func() { _ = closes.Close() }()
	conn, err := sockdiag.Open()
	if err != nil {
		return no(name, err, "allow AF_NETLINK in the seccomp profile")
	}
	defer func() { _ = conn.Close() }()
	var count [2][2]int // TCP and UDP, IPv4 and IPv6
	err = conn.Dump(sockdiag.All, make([]byte, sockdiag.BufferSize), func(s *sockdiag.Socket) {
		i, j := 0, 0
		if s.Protocol == unix.IPPROTO_UDP {
			i = 1
		}
		if s.Local.Addr().Is6() {
			j = 1
		}
		count[i][j]++
	})
	if err != nil {
		return no(name, err, "the kernel has no CONFIG_INET_DIAG, or a sandbox forbids it")
	}
	return mechanism{Name: name, Detail: fmt.Sprintf("the kernel lists sockets (TCP %d over IPv4, %d over IPv6, UDP %d and %d) and tells when one closes",
		count[0][0], count[0][1], count[1][0], count[1][1])}
}

func tryProcNet(proc string) mechanism {
	const name = "/proc/net"
	var have []string
	var last error
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open(filepath.Join(proc, "net", table))
		if err != nil {
			last = err
			continue
		}
		_ = f.Close()
		have = append(have, table)
	}
	if len(have) == 0 {
		return no(name, last, "mount procfs")
	}
	return mechanism{Name: name, Detail: strings.Join(have, " ")}
}

// tryNamespaces enters the network namespace that another process has, if there is one.
func tryNamespaces(proc string, pids []int32, v tier.View) mechanism {
	m := mechanism{Sensor: "network", Name: "other network namespaces", State: refused}
	home, err := os.Readlink(filepath.Join(proc, "self/ns/net"))
	if err != nil {
		m.Detail, m.Help = err.Error(), "mount procfs"
		return m
	}
	found, hidden := map[string]int32{}, 0
	for _, pid := range pids {
		switch space, err := os.Readlink(filepath.Join(proc, strconv.Itoa(int(pid)), "ns/net")); {
		case errors.Is(err, os.ErrPermission):
			hidden++
		case err == nil && space != home:
			found[space] = pid
		}
	}
	for _, pid := range found { // one will do, of a process that has not ended since
		err = netns.Enter(filepath.Join(proc, strconv.Itoa(int(pid)), "ns/net"), func() error { return nil })
		if !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	m.Detail = fmt.Sprintf("%d in view, those of %d processes are hidden", len(found), hidden)
	switch {
	case err != nil:
		m.Detail += "; they are polled by /proc: " + err.Error()
		m.Help = lacking(v, "to use sock_diag there", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE")
	case len(found) > 0:
		m.State = inUse
	case hidden > 0:
		m.Help = "where these are processes of this pod nothing is missed: a pod has one network; " + lacking(v, "to see a node's others", "CAP_SYS_PTRACE")
	default:
		m.State, m.Detail = available, "none but the agent's own in view"
	}
	return m
}

// lacking says which of the capabilities the agent needs to do what; when it has them all, what else may refuse it.
func lacking(v tier.View, what string, names ...string) string {
	missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(v.Capabilities, strings.TrimPrefix(name, "CAP_")) })
	switch {
	case len(missing) == 0:
		return what + ", allow it in the seccomp profile, the security module (AppArmor, SELinux) or the user namespace: no capability is missing"
	case v.UID != 0:
		return what + ", run as root with " + strings.Join(missing, " and ") + ": added capabilities take effect for root alone"
	}
	return what + ", add " + strings.Join(missing, " and ")
}

func tryCgroup(proc string) mechanism {
	const name = "cgroup"
	file, err := os.ReadFile(filepath.Join(proc, "self/cgroup"))
	if err != nil {
		return no(name, err, "without cgroups events have no container id")
	}
	unified, named := bytes.Contains(file, []byte("0::")), bytes.Count(file, []byte("\n"))
	switch {
	case !unified:
		return mechanism{Name: name, Detail: "version 1"}
	case named > 1:
		return mechanism{Name: name, Detail: "versions 1 and 2"}
	}
	return mechanism{Name: name, Detail: "version 2"}
}

func podsOf(s *settings, directory pods.Status) mechanism {
	switch directory.State {
	case pods.StateOwn:
		return mechanism{Name: "downward API", Detail: "pod " + s.Namespace + "/" + s.Pod + ", workload " + cmp.Or(s.Workload, "not told (WORKLOAD)")}
	case pods.StateOff, pods.StateFailing:
		return no("pod list", errors.New(directory.Reason), "events carry container ids alone: set NODE_NAME from spec.nodeName, "+
			"and let the service account list and watch pods; in a sidecar set POD_NAME and POD_NAMESPACE")
	case pods.StateStarting:
		return mechanism{Name: "pod list", Detail: "of node " + s.Node + ", asked for"}
	case pods.StateWatching:
	}
	return mechanism{Name: "pod list", Detail: fmt.Sprintf("of node %s: %d pods, %d containers", s.Node, directory.Pods, directory.Containers)}
}

// podsWithin bounds the wait for the first list of pods.
const podsWithin = 10 * time.Second

// askPods asks for the node's pods and returns what came of it.
func askPods(ctx context.Context, s *settings) pods.Status {
	if s.Pod != "" {
		return pods.Status{State: pods.StateOwn}
	}
	ctx, cancel := context.WithTimeout(ctx, podsWithin)
	defer cancel()
	directory := pods.New(pods.Config{Node: s.Node, Logger: slog.New(slog.DiscardHandler)})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = directory.Run(ctx) }) // nil, always
	tick := time.NewTicker(podsWithin / 500)
	defer tick.Stop()
	for {
		if st := directory.Status(); st.State != pods.StateStarting {
			return st
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return pods.Status{State: pods.StateFailing, Reason: "the API server does not answer within " + podsWithin.String()}
		}
	}
}
