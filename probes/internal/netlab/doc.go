// Package netlab makes small networks out of namespaces for tests: hosts around a router, with packet filter rules
// where a network plugin would have them. Everything in it goes away with the test.
//
// A test package that uses it calls [Main] from its TestMain, which runs the tests in a network namespace of their own,
// and in a user namespace when they are not root: so anyone can run them, and no packet leaves the machine.
package netlab
