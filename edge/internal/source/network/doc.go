// Package network is the sensor of connections: it watches the kernel's sockets and emits a network_connect event for
// each new connection, a network_listen event for each new listening socket, and one network_close event for the end of
// either.
//
// How it sees: sock_diag tells every end of a socket, with the bytes of a TCP connection, and lists sockets; where it is
// refused, /proc/net lists them. The counters in /proc/net/snmp and sockstat are a pulse: while they stand still no TCP
// connection opened or closed and no socket was bound, and a poll costs three small reads instead of a list. Sockets are
// joined to processes through the inodes in /proc/PID/fd, read only for sockets that are new, and to their ends through
// the kernel's cookies. Every network namespace is watched by itself, through sockets that are opened in it where that is
// permitted, else through /proc/PID/net of a process that is in it; a poll looks at our own and at 8 others in turn.
//
// Source and destination are the roles of the two ends, as in Sysmon and ECS: the source opened the connection, the
// destination is the service. So dst_port is the service's port in every event: the remote one of an outbound
// connection, the local one of an inbound connection or a listening socket (which has no source). A connection is inbound
// when its local port is one that somebody listens on, or did in the last two minutes; where no listener is known, when
// its local port is not one that the kernel gives to clients while the remote one is. All others are outbound. Of a
// connection within the machine each end is a connection of its own, outbound and inbound.
//
// Metadata: process_inferred, when the process is that of the listening socket or, in another network namespace, just one
// that is in it (so the pod is right); stdio_socket, when the socket is its process's standard input or output; reset,
// when its own side reset it, which hides the bytes; process_candidates, a list of pid, exe and confidence, of an outbound
// connection that nobody was seen to hold:
//
//	0.6  had a connection to the same service before, alone     0.3  the same, with others
//	0.5  began within the second before; its command line has   0.4  the same within the minute before
//	     the address                                            0.2  began within the second before
//
// Promises
//   - A connection is one connect event and one close event, however often it is seen. An attempt that has no answer
//     yet (SYN_SENT) is its connection already.
//   - By sock_diag, a connection that came and went between two polls is reported with addresses and bytes. By /proc, and
//     when the kernel dropped notices, it is reported from its TIME_WAIT, where it leaves one, without bytes.
//   - Sockets that exist when the sensor starts are a baseline and make no events, nor do their ends. What is in a
//     network namespace that appears later is new. The agent's own sockets and what is ignored make no events either;
//     short ones of the agent are known to be when they were made with [Sensor.Control].
//   - [Stats] bounds from above what was missed: connections that the kernel counted, less those that were seen.
//
// Limits: a connection that was over before it was listed has no process of its own, because the kernel does not tell
// whose it was: a notice has addresses, cookie and tcp_info, and neither uid, inode nor cgroup (net/ipv4/inet_diag.c,
// inet_diag_handler_get_info). One that its own side reset before it was listed is counted as missed at most. By /proc so is one whose
// other end closed first, an end is reported one poll late, because a list of changing sockets may skip one, and bytes
// stay 0. A network namespace that lives shorter than the interval may go unseen, and one in which nobody is left is held
// for up to 30 s, its sockets being ours. At most 65,536 sockets are tracked, TIME_WAITs counted.
package network
