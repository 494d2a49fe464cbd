package httpx

import (
	"net/netip"
	"syscall"
)

// notPublicError is an address that is not of the public internet.
type notPublicError struct{ netip.Addr }

func (e notPublicError) Error() string {
	return "its address " + e.String() + " is not one of the public internet, and private ones are not allowed here"
}

// onlyPublic is a [net.Dialer]'s Control: address is the one that is about to be connected to, after the name's look-up.
func onlyPublic(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return notPublicError{}
	}
	if !public(a.Addr()) {
		return notPublicError{a.Addr()}
	}
	return nil
}

// public reports whether a can be a host of the internet: of IPv4 what the registry of special addresses does not take
// out (iana.org/assignments/iana-ipv4-special-registry), of IPv6 what is in the only block given out
// (iana.org/assignments/ipv6-address-space) and not in iana.org/assignments/iana-ipv6-special-registry. An IPv4 address
// inside an IPv6 one counts as itself.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return !within(a, special4())
	}
	b := a.As16()
	switch {
	case nat64.Contains(a):
		return public(netip.AddrFrom4([4]byte(b[12:])))
	case sixToFour.Contains(a):
		return public(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return global6.Contains(a) && !within(a, special6())
}

var (
	global6   = netip.MustParsePrefix("2000::/3")
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056
)

func special4() []string {
	return []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16" /* with the metadata server */, "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"224.0.0.0/4", "240.0.0.0/4",
	}
}

func special6() []string { return []string{"2001::/23", "2001:db8::/32", "3fff::/20"} }

func within(a netip.Addr, prefixes []string) bool {
	for _, p := range prefixes {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}
