// Package calico knows clusters that run Calico: the objects its datastore needs, how its node
// program is run, how its CNI plugin is configured, how to tell that it is ready, and what it can do.
//
// It starts nothing. A provider applies [Objects], starts the node program with [Config.FelixEnvironment] in each node
// and hands [Config.CNIConfig] to whoever calls CNI plugins there.
//
// Pods get their addresses from their node's pod network by the host-local plugin, and Calico knows it (its
// documented USE_POD_CIDR mode). The node program therefore never has to allocate anything through the API, and what
// `calico-node -startup` and `-allocate-tunnel-addrs` would write is known beforehand: it is in [Objects] and
// [Config.NodeAnnotations], which spares two starts of a 118 MB program per node. Policy is enforced by the same code
// either way.
//
// [Plugin] is for the other kind of cluster, whose nodes run containers: there Calico is installed over the API as its
// vendor publishes it, and brings its own address management.
package calico
