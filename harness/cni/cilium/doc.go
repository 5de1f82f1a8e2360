// Package cilium holds what is Cilium's about a cluster that runs Cilium.
package cilium
