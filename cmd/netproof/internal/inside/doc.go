// Package inside takes a command that needs a local cluster into a sandbox: outside it checks the machine and builds the
// engines, inside it makes the cluster.
package inside
