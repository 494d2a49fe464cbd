// Package dispatch pushes the messages of a Pub/Sub subscription to an HTTP endpoint as Google's service does: the part
// that the in-process broker lacks altogether, and that Google's emulator does without filters, backoff or dead letters.
//
// What it promises is what the service documents (https://docs.cloud.google.com/pubsub/docs/push, .../dead-letter-topics,
// .../subscription-retry-policy, .../subscription-message-filter); the test's table has one row for each statement:
// wrapped requests, acknowledgement by 102, 200, 201, 202 and 204 alone, the ack deadline as the request's timeout,
// exponential backoff per message, deliveryAttempt, dead letters with the service's attributes, filters, the push window
// with its slow start, and push backoff.
//
// Limits: order is not kept, also not by ordering key, and there is no exactly-once mode (both are off in what APSS
// deploys); requests carry no OIDC token. Where the documentation gives no formula, the code says which one it took.
package dispatch
