// Package faults proves what the functions promise while their receivers, and they themselves, fail: published = delivered +
// dead-lettered, for every integration, and what came twice is counted. It has tests only. They build the program
// apss-functions and run it as it is deployed, between the embedded Pub/Sub and the stand-ins of all receivers, the real
// Postfix and the real Redis.
//
// The faults are a table, rows times integrations ([TestFaults]). All receivers of a row fail at the same time; all rows
// run at the same time. Times are those of a deployment, shortened: with -whole a receiver hangs for 30 s and is down for
// 60.
package faults
