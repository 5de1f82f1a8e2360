//go:build linux

package named

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// Serving tells whether this process is the program in a sandbox that [Create] makes, and should call [Serve].
func Serving() bool { return serving != nil }

// Door is a listener on the machine's loopback, outside the sandbox, for the program that serves: whatever user of the
// machine connects to it is in no way known. It is nil in other processes.
func Door() net.Listener { return door }

// Serve does the work of a named sandbox. The work calls ready when it is: with something that can be rendered as JSON,
// which [Info] then carries as Detail. It returns after its context ended, having cleaned up, or with an error; that
// the context was canceled is none then. An error before it was ready is what [Create] returns.
func Serve(ctx context.Context, work func(ctx context.Context, ready func(detail any) error) error) error {
	if serving == nil {
		return errors.New("serve under a name: this process was not started to do that")
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	tell := func(n news) error {
		if err := json.NewEncoder(serving).Encode(n); err != nil {
			return fmt.Errorf("tell the daemon: %w", err)
		}
		return nil
	}
	var isReady atomic.Bool
	err := work(ctx, func(detail any) error {
		info, err := json.Marshal(detail)
		if err != nil {
			return fmt.Errorf("tell the daemon: %w", err)
		}
		isReady.Store(true)
		return tell(news{Ready: true, Info: info})
	})
	if isReady.Load() && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // that was the wish
	}
	if err != nil {
		return errors.Join(err, tell(news{Error: err.Error()}))
	}
	return nil
}
