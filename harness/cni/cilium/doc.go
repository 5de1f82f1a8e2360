// Package cilium knows clusters that run Cilium.
package cilium
