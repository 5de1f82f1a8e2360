// Package process runs the upstream programs of a local cluster as children and watches over them.
//
// A child belongs to the namespaces of the thread that starts it, and its parent-death signal follows that thread, not
// the process: a [Thread] is locked for its whole life, so that a child lives neither in the wrong namespace nor longer
// than its node. A [Group] holds the children of one cluster. A death that nobody asked for is recorded there and never
// forgotten: a run that ends with [Group.Err] set has proven nothing since.
package process
