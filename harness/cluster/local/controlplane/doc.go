// Package controlplane runs etcd, kube-apiserver and kube-controller-manager for a local cluster.
//
// They are the upstream programs, with what a network test never touches switched off, because two processor cores must
// start them in seconds. Everything of theirs lives in one folder that vanishes with the sandbox, so etcd does not sync
// to disk. There is one user, known by a bearer token that is made for each cluster.
//
// What upstream does that this does not: authorization (whoever holds the token may do everything), kube-scheduler (the
// node agents bind pods that name no node), and the five seconds that the upstream namespace controller waits before it
// looks at a namespace that is being deleted ([NamespaceReaper] does not wait).
package controlplane
