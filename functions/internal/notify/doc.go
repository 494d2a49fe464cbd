// Package notify delivers the alerts of pushed messages to one integration.
//
// A program ([integration.Notifier]) gets every alert. People ([integration.IncidentNotifier]) get incidents: the first
// alert of a fingerprint at once; repeats as a count, in one message for each window; a higher severity at once; the
// incident's end after a time of quiet. What the rate limit, ours or the receiver's, does not let through goes into a
// digest. CRITICAL alerts are let through first and are no subject of our limit; only the receiver's own 429 puts one into
// a digest, which goes out when the receiver's pause is over.
//
// Promise: Handle returns nil only when the alert was
//   - accepted by the receiver,
//   - counted into the record of an incident of which the receiver accepted a message,
//   - written into the record of an incident that waits for a digest (and then the incident is in the log),
//   - not routed here, or a duplicate of one of which this holds,
//   - or confirmed as a dead letter.
//
// The same alert, redelivered or published twice, is dealt with once as long as its id is remembered, a day, memory
// permitting. The first message of an incident is sent once, however many instances get its alerts at the same moment.
//
// What a kill (-9) may duplicate: a message whose answer had not come is sent again; an alert that was counted and not
// yet marked as done is counted twice. What it may delay: for as long as the dead instance's leases last ([Config]'s
// Deliver and Bury), others leave its alerts and incidents alone. What it may lose: nothing when State is shared. With the
// memory store, the numbers of repeats since an incident's last message, the ends of open incidents, and what waits for a
// digest, which the log has. Close sends the numbers and the digest of a store in memory.
//
// Limits: the budget bounds the opened alerts; a record keeps at most 16 KiB of an alert, shortened visibly. The rate is
// that of one instance of the function. Pauses of the receiver are the breaker's.
package notify
