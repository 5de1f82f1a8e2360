// Package remote is a [cluster.Cluster] that is reached over its API server alone: probe pods run the netproof agent,
// and one exec stream for each of them carries batches of probes in and evidence out. What a provider knows beyond that
// (nodes it can enter, hosts it can make) it hands over in [Config].
package remote
