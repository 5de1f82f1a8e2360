// Package podagent is netproof's agent as a program of its own: in a probe pod, in the container of a node, or in a
// container beside the cluster.
//
// In a pod, [Serve] is the container's process. It serves the endpoint's ports from the start, but answers nobody
// before a runner has shown the key of the run, and it probes nothing but the endpoints of that run. The runner reaches
// it through an exec of [Bridge] in the same container. Elsewhere [Stdio] is both at once.
//
// The two meet at a socket of the abstract namespace, which belongs to the network namespace: the container's file
// system can be read-only, and needs no folder.
package podagent
