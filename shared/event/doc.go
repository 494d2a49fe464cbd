// Package event is the language all parts of APSS speak: the events that sensors emit, the alerts that rules make of
// them, and their JSON.
//
// The flow: a sensor fills an [Event]; the agent gives it an id, an identity and a severity; [Event.AppendJSON] writes
// it once, without reflection or allocation; from there on it travels as [Raw] bytes and is decoded again only by those
// who look inside. [Decode] keeps members it does not know, so an older part never strips what a newer one wrote.
//
// Promises: what AppendJSON writes is one line of valid JSON whatever bytes a process, a file name or a peer supplied
// (invalid UTF-8 becomes U+FFFD, control characters are escaped), and Decode(AppendJSON(e)) is e. Times are UTC with
// nanoseconds.
//
// Limits: lengths are the sensors' to bound; the envelope refuses what is larger than its own limits. Values of the
// types here are not safe for concurrent change.
package event
