// Package local is the provider of clusters made of Linux namespaces on one machine: the upstream control plane and
// network plugin as child processes, nodes and pods as network namespaces, and an agent per node in the place of the
// kubelet. It needs no container runtime, no images, and no root.
//
// It runs inside a sandbox (package sandbox), which gives it network, mount and PID namespaces of its own:
// [Provider.Create] fails outside of one. A sandbox holds one cluster; whatever ends the sandbox ends the cluster, with
// nothing left behind.
//
// Any client of the Kubernetes API can work with the cluster; there is no second way in. What is particular about it:
// images are not pulled, and every container port that a pod declares is served by netproof, which answers probes;
// pods that name no node are spread over the nodes in turn; there is no DNS server, no load balancer and no storage.
package local
