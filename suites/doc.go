// Package suites holds the entry points of go test: they prove the scenarios of the fixtures on a real cluster.
//
//	go test ./suites/...                                          every scenario on a local cluster with Calico
//	go test ./suites/... -args -labels feature=ingress            those with a label
//	go test ./suites/... -args -feature default-deny              those whose name matches
//	go test ./suites/... -args -cni none -nodes 3 -ip-family dual
package suites
