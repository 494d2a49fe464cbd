// Package message says what people are told of an incident: one model of it, in plain text, for chat, paging and email.
//
// The order is that in which somebody on call asks: what (the rule), where (cluster to container), who (the process and
// how it came to be), what it touched (file, connection), why it matters (technique), what to do, and last the counts,
// times and ids.
//
// Promises: no text holds anything that does not show or that changes how something else shows, see [Line]; no text is
// longer than what was asked for; no list is longer than it says below; what was cut is said. Markup and mentions are
// kept as they are: what they are differs from receiver to receiver, and the integration escapes them. The same incident
// always makes the same message.
package message
