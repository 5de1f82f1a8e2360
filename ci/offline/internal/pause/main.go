//go:build linux

// Command pause holds the namespaces of a pod: the program of the image that Kubernetes calls the pause, or sandbox,
// image. It waits for a signal, and meanwhile reaps the orphans of a pod whose containers share a process
// namespace. Upstream's is written in C and published as an image only.
package main

import (
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGINT, syscall.SIGTERM)
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		select {
		case <-ends:
			return
		case <-children:
			reap()
		}
	}
}

// reap collects every child that has ended: several can end for one signal.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
