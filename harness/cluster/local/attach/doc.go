// Package attach lets another process use a cluster that runs in this one: a run on a named cluster enters the
// cluster's sandbox, but the pods' probe agents live in the process that made it.
//
// [Serve] answers on a unix socket inside the sandbox; [Dial] gives a cluster.Cluster that asks it. A connection begins
// with one JSON line each way. If it asked for an agent, the rest of it is the protocol of probes/wire.
//
// One run at a time has the cluster. It holds a connection for as long as it lasts; when that ends, because the run
// gave the cluster back or because it was killed, the serving process removes what the run left: its hosts, and every
// object with the label that runs put on theirs.
package attach
