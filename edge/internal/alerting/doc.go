// Package alerting makes alerts of events, where they are born: an [Engine] evaluates the rules on each event that the
// sensors emit, marks the event with what it found, and hands out the alerts.
//
//	sensor -> identity -> Engine.Evaluate -> buffer of events
//	                        |  repeats are counted (package suppression)
//	                        +-> buffer of alerts
//
// The rules are the pack that comes with the agent (shared/detect/rules) and those of folders, which are laid over it: a
// rule with the id of another takes its place, filters take away what they name.
//
// # Promises
//
//   - Evaluate may be called by any number of goroutines. For an event that matches nothing it takes no lock and
//     allocates nothing.
//   - The severity of an event is the highest of what the sensor said, what such an event is worth by itself (base.go) and
//     the rules that match. Its Rules are theirs. Rules that only feed a correlation stay out of both.
//   - Evaluate makes alerts and never an event, so that rules about the agent's own events cannot call themselves.
//   - A fault in one rule never stops the others. A folder that cannot be read is said and stops nothing: the agent keeps
//     watching with the rules it has.
//   - The folders are read anew when the kernel tells of a change, and looked at every half minute in case it does not. No
//     event waits for that or is passed over. When the new state has a fault that the one in force has not, the rules in
//     force stay, and log, metrics and heartbeat say so.
//   - What correlation rules have gathered survives a reload, unless the reload changes a correlation rule or a rule that
//     one refers to.
//   - [Engine.Run] hands out all counts that were held back when it ends.
//
// # Limits
//
// Open windows of suppression and correlation are in memory: kill -9 loses them, not the events.
package alerting
