// Package install puts network plugins on a cluster that is reached over its API, and tells which ones run there.
//
// [Load] turns what a vendor publishes, or what a user gave instead, into a [Bundle]: the objects that will be applied,
// as they will be applied, with a digest over them. [Bundle.Apply] applies it, [AwaitReady] waits until its agents work
// on every node, and [Detect] finds the plugins of a cluster that somebody else made. What is one plugin's is in the
// packages beside this one, as a [Plugin].
//
// The vendor's objects stay as they are, apart from what the cluster decides (IP families and pod subnets), what the
// user asked for, and the few settings that a plugin's package documents; [Bundle.Changes] lists them all. Nothing that
// was downloaded is used before its digest has been compared.
package install
