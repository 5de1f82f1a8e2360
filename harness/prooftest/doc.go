// Package prooftest proves scenarios from go test, on a cluster that lives as long as the test binary.
//
// A package of tests takes part with two functions:
//
//	func TestMain(m *testing.M) { prooftest.Main(m) }
//
//	func TestPolicies(t *testing.T) { prooftest.Prove(t, "testdata/policies") }
//
// Each scenario becomes a feature of sigs.k8s.io/e2e-framework with the scenario's labels, and each step an assessment,
// so that its flags work: -labels, -feature, -assess, -skip-labels, -skip-features, -dry-run, -fail-fast. What one
// trips over: flags that are not go test's own come after -args.
//
// The test binary runs itself again in a sandbox (see harness/cluster/local/sandbox), so neither Docker nor root is
// needed, and nothing is left behind, whatever ends it.
package prooftest
