// Package run proves scenarios: for each it deploys the topology, applies each step's changes, samples every
// cell until it is settled, judges the evidence, and restores what it changed.
//
// What users of other tools get wrong, and what this package is about: a connection that fails is not a connection that
// was denied. A denial counts only if the prober was alive, the server was alive, the same path worked without the
// policy, the packet was sent, the server never saw it, every node had taken up the change, and a canary shows that the
// network plugin enforces policies at all. Everything else is inconclusive.
//
// What is expected comes from package expect. On a cluster:
//
//   - run.go opens a session and proves scenarios with it; lanes.go proves several side by side, in sessions of their
//     own; events.go has what observers hear;
//   - prove.go is one scenario, from its topology to its restoration; baseline.go tries connections without policies,
//     before the first step and after the last; verdict.go takes each cell to its verdict; pace.go says how long is
//     waited;
//   - features.go knows what the network plugin lacks.
//
// Package stage deploys topologies and canaries, applies policies, and restores what it changed. Package sampling sends
// the probes, and says when their series have settled and what they prove.
package run
