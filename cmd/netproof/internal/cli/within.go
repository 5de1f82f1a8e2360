package cli

import "context"

// Within does work that cannot be interrupted, such as reading a file system that does not answer, and stops waiting for it when ctx
// ends. Its error is then the cause of that. The work goes on until the process ends, so it must not write anything.
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
