// Package semantics is the specification of NetworkPolicy v1 in code: from a topology and a set of policies it tells
// whether a connection must be allowed, must be denied, or is left open, and why.
//
// It is pure: no input or output, no clock, no cluster. It knows nothing about any network plugin, so that what a
// plugin does can be held against it. The specification is, in this order:
//
//   - [the API reference]: the field comments of k8s.io/api/networking/v1, and the defaulting and validation that the
//     API server does for them;
//   - [the concept page] "Network Policies", whose sections the comments of this package name;
//   - [KEP-2079] for port ranges, and the Kubernetes end-to-end tests where both are silent and the tests are not.
//
// Where these leave a case open, the package does not guess. It lists the readings that the text permits, evaluates
// each of them, and answers [model.Undefined] when they disagree: a case in which every reading agrees is not open. A
// rule that depends on an address that is not known yet is no such case; it sets NeedsAddresses. docs/semantics.md
// lists every point at which the answer can be undefined.
//
// [the API reference]: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
// [the concept page]: https://kubernetes.io/docs/concepts/services-networking/network-policies/
// [KEP-2079]: https://github.com/kubernetes/enhancements/tree/master/keps/sig-network/2079-network-policy-port-range
package semantics
