package network

import (
	"bytes"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// pulse is what changes whenever a TCP connection opens or closes, or a socket is bound: RFC 4022's counters and the
// numbers of sockets in use, which the kernel keeps anyway.
type pulse struct {
	active, passive, failed, reset, current uint64
	inUse                                   [4]uint64 // TCP, UDP, TCP6, UDP6
}

// opened is how many connections there ever were, failed attempts counted.
func (p pulse) opened() uint64 { return p.active + p.passive }

// smallFiles reads small files of procfs.
type smallFiles struct {
	proc string
	buf  []byte
}

const (
	snmp      = "/snmp"
	sockstat  = "/sockstat"
	sockstat6 = "/sockstat6"
	portRange = "/sys/net/ipv4/ip_local_port_range"
	loadavg   = "/loadavg"
)

func (f *smallFiles) read(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	n := 0
	for n < len(f.buf) {
		k, err := unix.Read(fd, f.buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if k == 0 {
			break
		}
		n += k
	}
	return f.buf[:n], nil
}

// pulse reads it from a /proc/net. It returns false where the kernel does not keep the counters.
func (f *smallFiles) pulse(dir string) (pulse, bool) {
	var p pulse
	b, err := f.read(dir + snmp)
	if err != nil || !p.parseSNMP(b) {
		return pulse{}, false
	}
	for i, name := range [...]string{sockstat, sockstat6} {
		b, err := f.read(dir + name)
		if err != nil {
			continue // no IPv6
		}
		p.inUse[2*i], p.inUse[2*i+1] = parseSockstat(b)
	}
	return p, true
}

// parseSNMP finds the second of the two lines that start with "Tcp:"; the first has the names, whose order is fixed in
// the kernel's net/ipv4/proc.c.
func (p *pulse) parseSNMP(b []byte) bool {
	for line := range bytes.Lines(b) {
		values, found := bytes.CutPrefix(line, []byte("Tcp: "))
		if !found || len(values) == 0 || values[0] > '9' {
			continue
		}
		words := bytes.Fields(values)
		if len(words) < 9 {
			return false
		}
		ok := true
		for i, field := range [...]*uint64{&p.active, &p.passive, &p.failed, &p.reset, &p.current} {
			n, err := strconv.ParseUint(string(words[4+i]), 10, 64)
			*field, ok = n, ok && err == nil
		}
		return ok
	}
	return false
}

// parseSockstat returns the numbers of TCP and UDP sockets in use.
func parseSockstat(b []byte) (tcp, udp uint64) {
	for line := range bytes.Lines(b) {
		name, value, found := bytes.Cut(line, []byte(" inuse "))
		if !found {
			continue
		}
		end := bytes.IndexAny(value, " \n")
		n, err := strconv.ParseUint(string(value[:max(0, end)]), 10, 64)
		if err != nil {
			continue
		}
		switch string(name) {
		case "TCP:", "TCP6:":
			tcp = n
		case "UDP:", "UDP6:":
			udp = n
		}
	}
	return tcp, udp
}

// ports is a range of local ports, both ends in it.
type ports struct{ first, last uint16 }

func (p ports) contain(port uint16) bool { return p.first <= port && port <= p.last }

// newest is the pid that was given last, in our own pid namespace (proc_loadavg(5)); 0 when it is not readable.
func (f *smallFiles) newest() int32 {
	b, err := f.read(f.proc + loadavg)
	if err != nil {
		return 0
	}
	pid, _ := strconv.ParseInt(string(bytes.TrimSpace(b[bytes.LastIndexByte(b, ' ')+1:])), 10, 32)
	return int32(pid)
}

// ephemeral returns the ports that the kernel gives to sockets which ask for none, ip(7), in the calling thread's network
// namespace; its default when that is not readable.
func (f *smallFiles) ephemeral() ports {
	b, err := f.read(f.proc + portRange)
	if err == nil {
		if words := bytes.Fields(b); len(words) == 2 {
			first, err1 := strconv.ParseUint(string(words[0]), 10, 16)
			last, err2 := strconv.ParseUint(string(words[1]), 10, 16)
			if err1 == nil && err2 == nil {
				return ports{uint16(first), uint16(last)}
			}
		}
	}
	return ports{32768, 60999}
}
