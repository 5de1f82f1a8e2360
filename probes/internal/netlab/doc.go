// Package netlab makes small networks out of namespaces for tests: hosts around a router, with packet filter rules
// where a network plugin would have them. Everything in it goes away with the test.
//
// It takes the privileges of root, at least in a user namespace: see package rerun.
package netlab
