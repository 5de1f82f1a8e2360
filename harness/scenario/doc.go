// Package scenario reads the files that users write, and plans what a run does with them.
//
// [Load] reads scenario files, and folders of plain Kubernetes manifests, strictly: an unknown key, a name that means
// nothing, a policy that the API server would refuse is a [Problem] with file, line, column and the fix. All problems
// of all files are found in one go. Nothing here touches a cluster.
//
// [Scenario.Plan] turns a scenario into what a run needs, step by step: the changes, the topology and the policies that
// result, and the cells of the truth table with what the scenario's author expects of them. It is pure.
//
// Kubernetes reads YAML 1.1, in which an unquoted y, n, yes, no, on or off is a boolean. Where a name or a label is
// wanted, such a word is refused rather than guessed at.
package scenario
