// Package network is the sensor of connections: it watches the kernel's tables of sockets and emits a network_connect
// event for each new connection, a network_listen event for each new listening socket, and one network_close event for
// the end of either.
//
// How it sees: the counters in /proc/net/snmp and sockstat are a pulse. While they stand still no TCP connection opened
// or closed and no socket was bound, and a poll costs three small reads instead of a walk through the kernel's hash
// table, which takes milliseconds however few sockets there are. Sockets are joined to processes through the inodes
// in /proc/PID/fd, read only for sockets that are new.
//
// Source and destination are the roles of the two ends, as in Sysmon and ECS: the source opened the connection, the
// destination is the service. So dst_port is the service's port in every event: the remote one of an outbound
// connection, the local one of an inbound connection or a listening socket (which has no source).
//
// Promises
//   - A connection is one connect event and one close event, however often it is seen. An attempt that has no answer
//     yet (SYN_SENT) is its connection already.
//   - A connection that came and went between two polls is reported from its TIME_WAIT, where it leaves one.
//   - Sockets that exist when the sensor starts are a baseline and make no events, nor do their ends. The agent's own
//     sockets and what is ignored make none either.
//   - [Stats] bounds from above what was missed: connections that the kernel counted, less those that were seen.
//
// Limits: it sees the network namespace of the process that reads. A short connection whose other end closed first, or
// that was reset, is counted as missed at most; /proc has no trace of it. An end is reported one poll late, because a
// list of changing sockets may skip one. At most 65,536 sockets are tracked. Bytes are not in /proc/net and stay 0.
package network
