package detect

import (
	"net/netip"
	"slices"
	"time"
)

// op is what a node does with its kids.
type op uint8

const (
	opLeaf op = iota
	opAnd
	opOr
	opNot
	opTrue
	opFalse
)

// node is a rule's meaning: and, or, not over leaves. Nodes are never changed after they were made and may be shared.
type node struct {
	op   op
	kids []*node
	leaf *leaf
}

// leafKind is what a leaf asks of its field's values. A leaf is true when one of the values fits; a field without values
// fits nothing.
type leafKind uint8

const (
	leafExists  leafKind = iota // the field has a value
	leafPattern                 // the pattern, in any case of letters unless cased
	leafRegexp                  // the regular expression, somewhere in the value
	leafNetwork                 // an address of the network
	leafCompare                 // a number by comparison
	leafRef                     // another field's value
	leafBefore                  // a time before another
)

type leaf struct {
	field   *field
	kind    leafKind
	cased   bool
	pattern pattern
	regexp  *expression
	network netip.Prefix
	compare comparison
	unit    timeUnit // for compare: the part of a time that is compared; noUnit compares the value
	before  time.Time
	ref     *field
	refAt   anchor
}

// anchor is where in a value another one must stand.
type anchor uint8

const (
	whole anchor = iota
	atStart
	atEnd
	anywhere
)

func leafNode(l *leaf) *node { return &node{op: opLeaf, leaf: l} }

// join makes an and or or of kids; of one kid it is that kid.
func join(op op, kids []*node) *node {
	if len(kids) == 1 {
		return kids[0]
	}
	return &node{op: op, kids: kids}
}

func negate(n *node) *node {
	if n.op == opNot {
		return n.kids[0]
	}
	return &node{op: opNot, kids: []*node{n}}
}

// leaves calls yield for every leaf below n; a shared leaf comes as often as it is used.
func (n *node) leaves(yield func(*leaf)) {
	if n.leaf != nil {
		yield(n.leaf)
	}
	for _, k := range n.kids {
		k.leaves(yield)
	}
}

// simplify replaces the leaves that know decides by their truth, removes what that makes needless, and flattens and in
// and, or in or. The result is opTrue, opFalse, or a tree without either.
func (n *node) simplify(know func(*leaf) (truth, known bool)) *node {
	switch n.op {
	case opLeaf:
		if truth, known := know(n.leaf); known {
			return constant(truth)
		}
		return n
	case opNot:
		k := n.kids[0].simplify(know)
		switch k.op {
		case opTrue:
			return constant(false)
		case opFalse:
			return constant(true)
		default:
			return negate(k)
		}
	case opAnd, opOr:
		neutral, deciding := opTrue, opFalse
		if n.op == opOr {
			neutral, deciding = opFalse, opTrue
		}
		var kids []*node
		for _, k := range n.kids {
			k = k.simplify(know)
			switch k.op {
			case deciding:
				return k
			case neutral:
			case n.op:
				kids = append(kids, k.kids...)
			default:
				kids = append(kids, k)
			}
		}
		if len(kids) == 0 {
			return constant(neutral == opTrue)
		}
		return join(n.op, slices.Clip(kids))
	default:
		return n
	}
}

func constant(truth bool) *node {
	if truth {
		return &node{op: opTrue}
	}
	return &node{op: opFalse}
}
