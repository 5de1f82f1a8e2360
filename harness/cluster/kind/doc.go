// Package kind makes clusters out of containers with sigs.k8s.io/kind, and installs the network plugin that is asked
// for.
//
// # What a cluster is made of, and how it is known
//
// A cluster NAME is the kind cluster of that name on a network of its own, netproof-NAME, which carries the label
// [LabelCluster]. The network comes first and goes last, so whatever there is of a cluster can be found by it, without
// its API server and from any process. What is not on such a network is not netproof's and is never touched.
//
// # What ends a cluster
//
// kind's Create takes no context, and leaves commands behind that go on after it failed. It therefore runs in a process
// of its own, the maker: when the context ends, the maker is killed, what its last commands still make is removed until
// none of them runs any more, and then the rest. A second process, the watchdog, sees when the process that made the
// cluster is gone without having closed or kept the cluster, and removes it. Both are this program again: [Init] comes
// first in main.
//
// # When a cluster is ready
//
// Not when kind says so. Every node must be ready, the control plane's and kube-proxy's pods run, the network plugin be
// installed, ready on each node, and the only one that enforces policies.
package kind
