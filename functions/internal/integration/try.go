package integration

import (
	"context"
	"time"

	"github.com/apss-sensor/apss/shared/httpx"
	"github.com/apss-sensor/apss/shared/outcome"
)

// Try makes i's own test when it is a [Tester], else call, and returns what the receiver said: where the receipt does not
// say it, the last answer over HTTP, or of a failure its status and reason. A panic is a failure. The error is an *[outcome.Error].
func Try(ctx context.Context, i any, call func(context.Context) error) (Receipt, error) {
	begin := time.Now()
	ctx, heard := httpx.Listen(ctx)
	receipt, err := try(ctx, i, call)
	if receipt.Latency == 0 {
		receipt.Latency = time.Since(begin)
	}
	e := outcome.From(err)
	if e == nil || e.Class == outcome.OK {
		if receipt.Status == 0 && receipt.Answer == "" {
			receipt.Status, receipt.Answer = heard.Last()
		}
		return receipt, nil
	}
	if receipt.Status == 0 {
		receipt.Status = e.Status
	}
	if receipt.Answer == "" {
		receipt.Answer = e.Reason
	}
	return receipt, e
}

func try(ctx context.Context, i any, call func(context.Context) error) (receipt Receipt, err error) {
	defer func() {
		if recover() != nil {
			err = &outcome.Error{Class: outcome.Permanent, Reason: "the integration panicked"}
		}
	}()
	if t, ok := i.(Tester); ok {
		return t.Test(ctx)
	}
	return receipt, call(ctx)
}
