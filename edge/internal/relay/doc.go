// Package relay takes events and alerts from the sidecars of a cluster, proves which pod speaks, and turns many trickles
// into few messages.
//
//	POST /v1/events -> token -> pod's limits -> room -> unpack -> identity -> group commit -> Pub/Sub -> 200
//	                    401       429            429      400      written     one for each      429, 503
//	                                                               over        attribute set
//
// A request is one message of package envelope in the CloudEvents HTTP binding's binary mode: the ce- attributes are
// headers, the data is the body. What it says of its place is written over by what its token proves (package stamp); that it
// said something else is an event of its own, [event.AgentIdentityConflict], which goes the same way.
//
// Promises
//
//   - 200 means that Pub/Sub has it. Any other answer means that the sender must keep it, but for the ones marked as
//     refused ([publish.Verdict]), which say that the message will never be accepted.
//   - A message that cannot be published harms its sender only: what Pub/Sub refuses of several senders is published for each
//     alone.
//   - Alerts have room of their own and wait for no batch. A message with an event of severity HIGH or above is published at
//     once, together with others like it, and never with what may wait.
//   - A pod has a bounded number of requests, rate and share of the room; what is left is shared fairly (package fair).
//   - While tokens cannot be checked, those that were go on; others are told to come back.
//
// Limits: delivery is at least once: who gives up on an answer and sends again may be heard twice.
package relay
