// Package cluster says what a run needs of a cluster, whoever provides it.
//
// A [Provider] makes or finds clusters; a [Cluster] gives access to its API and to an agent in every pod. Providers are
// sub-packages: local, kind and existing. What kind and existing share is in remote; providers lists them all, with the
// network plugins of each.
package cluster
