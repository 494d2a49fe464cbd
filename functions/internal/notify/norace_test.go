//go:build !race

package notify

const stormAlerts = 100_000
