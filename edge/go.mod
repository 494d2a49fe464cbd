module github.com/apss-sensor/apss/edge

go 1.26.0

replace github.com/apss-sensor/apss/shared => ../shared

require (
	github.com/apss-sensor/apss/shared v0.0.0
	github.com/google/go-cmp v0.7.0
)

require (
	cloud.google.com/go/pubsub/v2 v2.8.1
	github.com/cenkalti/backoff/v5 v5.0.3
	github.com/go-json-experiment/json v0.0.0-20260820222146-c27c302e5fc3 // indirect
	github.com/google/uuid v1.6.0 // indirect
	golang.org/x/sys v0.49.0
)
