// Package agent takes events from sensors to a publisher and loses none that it can hold.
//
//	source -> emit -> identity -> rules -> buffer -> sealer -> spool -> pump -> senders -> publisher
//	                                |      bounded,  100 events, ^                |  |
//	                                |      priority  256 KiB,    +-- confirmed ---+  +-> refused
//	                                v                200 ms
//	                              alerts: a lane of their own
//
// There are two lanes of the same machinery, with nothing in common but the publisher: events, and alerts, one a
// message. So bulk never delays an alert.
//
// Promises
//
//   - emit never waits: not for the disk, not for the network. What does not fit into the buffer is dropped by the
//     buffer's rules and counted.
//   - A message is in the spool before it is sent, and leaves it after the publisher confirmed it. While the spool
//     cannot take it, it is handed to a sender directly: memory then holds the buffer and one message for each sender.
//   - A message is retried until it is confirmed, with growing pauses; one that will never be accepted is set aside in a
//     bounded spool of its own (refused), so that it blocks nobody and a person can look at it.
//   - An event of severity HIGH or above, and an alert, is sealed at once, together with what has gathered. Events that
//     follow within urgentGap wait for its end: a storm of HIGH events still makes batches.
//   - sealed returns when all that was emitted before is in the spool, confirmed, or was dropped and counted.
//   - An alert is put in before the event that made it.
//   - At the end of Run the sources stop, the rules hand out the repeats that they held back, the buffers are sealed and
//     the spool is drained for a bounded time; the rest stays in the spool for the next run.
package agent
