// Package sweep removes what runs left on a cluster that could not do it themselves: [Cleanup] for whoever asks, and
// [Hold] before a run begins.
//
// Only what has both labels of a run ([cluster.RunLabel], [cluster.OwnLabel]) is ever removed, and nothing of a run
// whose Lease is alive.
package sweep
