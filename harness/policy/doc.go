// Package policy knows which kinds of network policies netproof can apply, and names single objects.
//
// [Kinds] is the one table of them: scenarios accept these kinds, rights are given on them, and what a killed run left
// is looked for among them. A new kind is one line there. What the kinds mean is not said here: that is package
// semantics for a NetworkPolicy, and nobody's business yet for the others. The package does no I/O.
package policy
