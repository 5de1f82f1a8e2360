// Package inns runs a function inside another network namespace.
//
// What one gets wrong: a namespace belongs to an operating system thread, not to a goroutine or a process, while a
// socket, once made, belongs for good to the namespace its thread was in at that moment. So it is enough to make the
// socket inside; binding, connecting, reading and writing may then happen on any thread. Code that is run inside must
// not leave its goroutine: goroutines it starts (and thus net.Dialer, net.Listen with names, the resolver, os/exec)
// may run on another thread, in another namespace.
package inns
