// Package engine supplies the upstream programs that the local cluster runs: the Kubernetes control plane, etcd,
// and the network plugin. They are the programs that their projects publish, compiled from their own Go modules and
// unmodified; netproof links none of their code.
//
// Each engine is one Go module with its own go.mod and go.sum, because the projects need Kubernetes libraries of
// different versions and so cannot share a build list. The files are embedded in netproof as go.mod.txt and
// go.sum.txt: a folder that holds a go.mod would not be part of netproof's own module and could not be embedded.
//
// [Ensure] builds what a cluster needs, once, into a cache folder of the user:
//
//	<cache>/<name>-<key>/       the executables and data files of one engine, whole or absent
//	<cache>/<name>-<key>.lock   held exclusively by whoever builds, shared by whoever uses
//	<cache>/.building-<name>-<key>/  the work of a build, removed by the next one if it was interrupted
//
// The key is a digest of everything that goes in: the module files, the programs, the build flags, the Go toolchain and
// the platform. A folder appears under its final name by a rename, after all of its files are there, so a
// half-built engine is never taken for a whole one. An interrupted build resumes from the Go build cache, which keeps
// every package that was finished.
//
// The one thing users get wrong: the first build takes minutes and needs a Go module proxy. [Export] and [Import] carry
// engines to machines that have no proxy, no Go, or no time; [Options.EngineDir] takes programs that somebody else
// built.
package engine
