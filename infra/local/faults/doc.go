// Package faults proves what the functions promise while their receivers, and they themselves, fail: published = delivered +
// dead-lettered, for every integration, and what came twice is counted. It has tests only. They build the program
// apss-functions and run it as it is deployed, between the embedded Pub/Sub and the stand-ins of all receivers.
//
// What a fault does to one call (a cut body, a wrong certificate, a date in Retry-After) is proven by the conformance suite
// of integrations; here it is the whole path.
package faults
