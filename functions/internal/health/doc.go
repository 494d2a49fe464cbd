// Package health tells how the integrations are, and whether agents fell silent.
//
// Three witnesses speak of an integration. Its check asks the receiver, on a schedule. Its deliveries, in whichever
// instance of whichever function they happen, are counted there and added up in the state. Its canary, when it opted in,
// is a marked message that enters at the topics on a schedule and must come out at the receiver. [judge] makes a status of
// what they say, with the reasons in words.
//
// An agent is silent when it sent no heartbeat for three of its intervals, Config.Silence at least, and did not say that it
// ends. Times are those at which Pub/Sub took a heartbeat, so that no node's clock counts; and silence is counted up to
// the newest message of the topic that came here, so that a subscription that lags silences nobody. A silence is one
// alert, [SilentRule], and the agent's return ends its incident.
//
// Promises: no check, test or canary outlives its deadline, and none waits for another's. What this package does beside
// deliveries never fails one. Each round is made by one instance.
//
// Limits: figures are of the last hour, in slots of five minutes, and late by some ten seconds; a killed instance loses
// those it had not added yet. Without a state that instances share, each knows its own only, and the report says so.
// 10,000 agents are followed; those beyond are counted.
package health
