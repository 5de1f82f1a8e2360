// Package nodeagent does for the pods of a node what the kubelet does for their network: it makes a pod's network
// namespace, has the CNI plugin attach it, serves the ports that the pod declares, says so in the pod's status, and
// undoes all of it when the pod is deleted. Images, volumes and init containers have no meaning here and are passed
// over.
//
// A pod is Ready when every server of its ports has answered from inside the pod's namespace and the network plugin
// says that it has set the pod up. The UID tells pods apart: one that is created under the name of a deleted
// one waits until that one is gone from the node.
package nodeagent
