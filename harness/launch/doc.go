// Package launch gives the cluster that a run wants, and keeps what a run writes while it goes on: what the command
// line and tests in Go both need. It knows providers and files, and neither flags nor streams.
//
//   - launch.go gives a cluster of any provider;
//   - sandbox.go prepares this machine for a local cluster, and takes this program into a sandbox, where such a cluster
//     lives; named.go does the same for one that stays;
//   - journal.go keeps a run readable while it goes on; expected.go keeps the tables that a run computed.
package launch
