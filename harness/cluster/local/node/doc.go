// Package node makes the network of a local cluster out of Linux namespaces: the fabric, which is a bridge in the
// namespace of the sandbox; nodes, each a network and a mount namespace with a cable to the bridge; pods, each a
// network namespace made from its node; and hosts, which are on the bridge and no part of the cluster.
//
// The one thing to know: a namespace is a property of a thread. Whatever must happen in a node goes through [Node.Do],
// which runs it on a thread that is in the node's namespaces; whoever opens a socket or a /proc/sys file elsewhere gets
// another node's, or the fabric's, without an error.
//
// Nothing here leads out of the machine: the default route of a node ends at the fabric's bridge, and the fabric does
// not forward.
package node
