// Package existing provides clusters that are there already: whatever a kubeconfig points at, or the one that netproof
// itself runs in.
//
// Nothing of the cluster is changed but what a run makes, and all of that carries two labels, [cluster.OwnLabel] and
// [cluster.RunLabel]. Nothing without both of them is ever removed. A Lease keeps two runs apart (package lease),
// [Rules] are the rights that a run needs, [Doctor] tells whether they are there, and package sweep removes what a run
// left that could not do it itself.
//
// What users of shared clusters get wrong: a namespace prefix keeps the names of two runs apart, not their effects.
// Policies of the cluster's scope (AdminNetworkPolicy, GlobalNetworkPolicy, CiliumClusterwideNetworkPolicy) and changes
// of built-in namespaces reach every pod of the cluster, those of other runs and of other users included.
package existing
