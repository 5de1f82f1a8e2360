package cli

import (
	"context"
	"io"
)

// Within does work that cannot be interrupted, such as reading a file system that does not answer, and stops waiting
// for it when ctx ends. Its error is then the cause of that. The work goes on until the process ends, so it must not
// write anything.
func Within[T any](ctx context.Context, work func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := work()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// WriteWithin hands write a writer to w that gives an error as soon as ctx ends, the cause of that, also while w takes
// nothing: a pipe that nobody reads from blocks for ever. What was written last may then still be on its way to w.
func WriteWithin(ctx context.Context, w io.Writer, write func(io.Writer) error) error {
	r, pipe := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })
	defer stop()
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1<<20))
		_ = r.CloseWithError(err) // which write gets to know
		done <- err
	}()
	err := write(pipe)
	_ = pipe.CloseWithError(err) // ends the copy
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	select {
	case err = <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
