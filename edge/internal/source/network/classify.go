package network

import (
	"net/netip"
	"slices"

	"github.com/apss-sensor/apss/shared/event"
)

// Directions of the contract.
const (
	outbound  = "outbound"
	inbound   = "inbound"
	listening = "listen"
)

// DefaultSuspiciousPorts are those that the first version of this system watched.
func DefaultSuspiciousPorts() []uint16 {
	return []uint16{4444, 5555, 6666, 1337, 3389, 5900, 5901, 6379, 27017}
}

// DefaultInternalNets is the shared address space of RFC 6598, which GKE gives to pods.
func DefaultInternalNets() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}
}

// external reports whether a is on the public network: not private (RFC 1918, RFC 4193), loopback, link-local,
// multicast, broadcast or unspecified, nor in a range of the cluster's own.
func external(a netip.Addr, internal []netip.Prefix) bool {
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	return !slices.ContainsFunc(internal, func(p netip.Prefix) bool { return p.Contains(a) })
}

// describe makes the record of a socket.
func (c *Config) describe(k key, direction string, st state) event.Network {
	n := event.Network{Protocol: k.protocol.String(), Direction: direction, State: st.String()}
	src, dst := k.local, k.remote
	switch direction {
	case inbound:
		src, dst = k.remote, k.local
	case listening:
		src, dst = netip.AddrPort{}, k.local
	}
	if src.IsValid() {
		n.SrcIP, n.SrcPort = src.Addr().String(), src.Port()
	}
	n.DstIP, n.DstPort = dst.Addr().String(), dst.Port()
	n.IsExternal = direction != listening && external(k.remote.Addr(), c.InternalNets)
	n.IsSuspiciousPort = slices.Contains(c.SuspiciousPorts, dst.Port())
	return n
}

// ignored reports whether one end of k is to be ignored. An unspecified address stands for every address.
func (c *Config) ignored(k key) bool {
	return slices.ContainsFunc(c.Ignore, func(i netip.AddrPort) bool {
		return matches(i, k.local) || matches(i, k.remote)
	})
}

func matches(rule, end netip.AddrPort) bool {
	return rule.Port() == end.Port() && (rule.Addr().IsUnspecified() || rule.Addr().Unmap() == end.Addr())
}
