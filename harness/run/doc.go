// Package run proves one scenario after the other: it deploys the topology, applies each step's changes, samples every cell
// until it is settled, judges the evidence, and restores what it changed.
//
// What users of other tools get wrong, and what this package is about: a connection that fails is not a connection that was
// denied. A denial counts only if the prober was alive, the server was alive, the same path worked without the policy, the
// packet was sent, the server never saw it, every node had taken up the change, and a canary shows that the network plugin
// enforces policies at all. Everything else is inconclusive.
//
//   - stage.go brings a topology up, changes it and restores it;
//   - canary.go holds the two connections that are always denied and always allowed, and the barrier that tells when a
//     change has reached every node;
//   - sample.go sends rounds of probes; settle.go, which is pure, says when their series has settled;
//   - judge.go, pure as well, turns a settled series and the controls into a verdict;
//   - expect.go compares the hand-written table with the specification.
package run
