//go:build race

package notify

// stormAlerts are fewer under the race detector, which makes each ten times as slow.
const stormAlerts = 20_000
