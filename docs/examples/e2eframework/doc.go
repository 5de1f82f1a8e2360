// Package e2eframework is an example: tests of sigs.k8s.io/e2e-framework on a kind cluster that netproof makes, waits
// for and removes.
//
//	go test ./docs/examples/e2eframework -args -kind
package e2eframework
