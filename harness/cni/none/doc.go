// Package none configures a network without a policy engine: pods are connected by the reference plugins ptp and
// host-local, nodes by plain routes, and every policy is ignored. It shows what a network plugin that enforces nothing
// looks like, and is the quickest way to a cluster for tests that are not about policies.
package none
