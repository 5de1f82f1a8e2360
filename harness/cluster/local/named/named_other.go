//go:build !linux

package named

import (
	"context"
	"fmt"

	"github.com/netproof/netproof/harness/cluster/local/sandbox"
)

// Sandboxes, and the abstract sockets that name them, are Linux's. Elsewhere there is none under any name, and none can
// be made.

// Init does nothing: no process is started for a name.
func Init() {}

// Serving is false.
func Serving() bool { return false }

// Serve returns the error of [Create].
func Serve(ctx context.Context, _ func(ctx context.Context, ready func(detail any) error) error) error {
	return sandbox.Check(ctx)
}

// Create returns an error that matches [sandbox.ErrUnavailable] and says what to do.
func Create(ctx context.Context, name string, _ Options) (Info, error) {
	return Info{}, fmt.Errorf("create %s: %w", name, sandbox.Check(ctx))
}

// Find returns an error that matches [ErrNotFound].
func Find(_ context.Context, name string) (Info, error) {
	return Info{}, fmt.Errorf("%s: %w", name, ErrNotFound)
}

// List gives nothing.
func List(context.Context) (infos []Info, held []*HeldError, err error) { return nil, nil, nil }

// Log returns the error of [Find].
func Log(ctx context.Context, name string) ([]byte, error) {
	_, err := Find(ctx, name)
	return nil, err
}

// Delete returns the error of [Find].
func Delete(ctx context.Context, name string) error {
	_, err := Find(ctx, name)
	return err
}

// Enter returns the error of [Find].
func Enter(ctx context.Context, name string, _ sandbox.Command, _ sandbox.EnterOptions) (int, error) {
	_, err := Find(ctx, name)
	return 0, err
}
