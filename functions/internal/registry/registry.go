// Package registry lists the kinds of integrations. The list is made from the folders of functions/internal/integrations:
// whoever adds one runs go generate here.
package registry

//go:generate go run ./generate ../integrations kinds.go
