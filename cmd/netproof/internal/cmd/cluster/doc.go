// Package cluster is the command netproof cluster, and the commands below it.
package cluster
