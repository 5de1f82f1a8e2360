//go:build linux

package local

import (
	"context"
	"io"
	"net"
	"time"

	"golang.org/x/sync/semaphore"
)

// mostVisitors is how many connections from outside there are at a time: anybody on the machine can open one, and is
// refused only by the API server.
const mostVisitors = 256

// ServeAPI passes what comes on a listener on to the API server, until ctx ends. Both ends speak TLS through it, so
// that the token of the cluster decides who gets an answer.
func (c *Cluster) ServeAPI(ctx context.Context, door net.Listener) {
	stop := context.AfterFunc(ctx, func() { _ = door.Close() })
	defer stop()
	visitors := semaphore.NewWeighted(mostVisitors)
	for visitors.Acquire(ctx, 1) == nil {
		conn, err := door.Accept()
		if err != nil {
			visitors.Release(1)
			if ctx.Err() != nil {
				return
			}
			select { // a lack of descriptors, which passes
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		go func() {
			defer visitors.Release(1)
			c.passOn(ctx, conn)
		}()
	}
}

// passOn copies both ways until either end is done.
func (c *Cluster) passOn(ctx context.Context, visitor net.Conn) {
	defer visitor.Close()
	var d net.Dialer
	server, err := d.DialContext(ctx, "tcp", c.control.Address())
	if err != nil {
		return // the visitor sees that its connection ends
	}
	defer server.Close()
	stop := context.AfterFunc(ctx, func() { _, _ = visitor.Close(), server.Close() })
	defer stop()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{visitor, server}, {server, visitor}} {
		go func() {
			_, _ = io.Copy(way[0], way[1]) // however it ends, it has ended
			done <- struct{}{}
		}()
	}
	<-done
}
