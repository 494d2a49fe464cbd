package connector

import (
	"encoding/binary"
	"time"
)

// Kind is what happened.
type Kind uint8

// The kinds. All that the connector announces besides (ids, sessions, names, traces, core dumps) is None.
const (
	None Kind = iota
	Fork
	Exec
	Exit
)

// Event is one announcement. A process is its thread group; PID and TGID differ for what happens to another thread than
// its first.
type Event struct {
	Kind Kind
	PID  int32
	TGID int32
	// Parent is the parent process of a Fork and an Exit.
	Parent int32
	// Status is how an Exit ended, as wait(2) reports it.
	Status uint32
	// At is when it happened.
	At time.Time
}

// Thread reports whether the event is about a thread that is not its process's first.
func (e Event) Thread() bool { return e.PID != e.TGID }

// enum what of include/uapi/linux/cn_proc.h.
const (
	answer   = 0x00000000 // PROC_EVENT_NONE: somebody's request was taken
	whatFork = 0x00000001
	whatExec = 0x00000002
	whatExit = 0x80000000
)

// A message is a struct nlmsghdr of 16 bytes, a struct cn_msg of 20, and a struct proc_event: what, CPU, and time stamp
// in 16 bytes, then what depends on what.
const (
	messageAt = 16 + 20
	dataAt    = messageAt + 16
)

// unnumbered is the CPU of an answer before Linux 4.7. Later ones are numbered as announcements are.
const unnumbered = 0xffffffff

type message struct {
	what, cpu, seq, ack uint32
	nanos               int64 // CLOCK_MONOTONIC
	code                uint32
	event               Event
}

func parse(b []byte) (message, bool) {
	order := binary.NativeEndian
	if len(b) < dataAt+4 || order.Uint32(b[16:]) != procIndex || order.Uint32(b[20:]) != procValue {
		return message{}, false
	}
	m := message{
		seq:   order.Uint32(b[24:]),
		ack:   order.Uint32(b[28:]),
		what:  order.Uint32(b[messageAt:]),
		cpu:   order.Uint32(b[messageAt+4:]),
		nanos: int64(order.Uint64(b[messageAt+8:])),
	}
	data := b[dataAt:]
	word := func(i int) uint32 {
		if len(data) < 4*i+4 {
			return 0
		}
		return order.Uint32(data[4*i:])
	}
	pid := func(i int) int32 { return int32(word(i)) }
	switch m.what {
	case answer:
		m.code = word(0)
	case whatFork:
		m.event = Event{Kind: Fork, Parent: pid(1), PID: pid(2), TGID: pid(3)}
	case whatExec:
		m.event = Event{Kind: Exec, PID: pid(0), TGID: pid(1)}
	case whatExit:
		m.event = Event{Kind: Exit, PID: pid(0), TGID: pid(1), Status: word(2), Parent: pid(5)}
	}
	if m.event.PID < 0 || m.event.TGID <= 0 && m.event.Kind != None {
		m.event = Event{}
	}
	return m, true
}
