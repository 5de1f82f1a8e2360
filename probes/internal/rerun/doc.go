// Package rerun runs a test binary once more in namespaces of its own: a network namespace, and a user namespace when
// it is not run by root. So anyone can run tests that make interfaces and packet filter rules, and no packet of theirs
// leaves the machine.
package rerun
