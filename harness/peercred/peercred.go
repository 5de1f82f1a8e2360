//go:build linux

// Package peercred tells who is at the other end of a unix socket. Abstract sockets have no permissions: whoever knows
// a name can connect to it, and can hold it before the one who is meant.
package peercred

import (
	"net"

	"golang.org/x/sys/unix"
)

// Of gives the process and user that connected, or for the side that connects those that listen, as the kernel noted
// them then. A process that this PID namespace does not have is 0; a user that this user namespace does not have is the
// overflow user, 65534.
func Of(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		cred    *unix.Ucred
		errCred error
	)
	if err := raw.Control(func(fd uintptr) {
		cred, errCred = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, errCred
}
