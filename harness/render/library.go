package render

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
)

// mostNotes bounds what is kept of what a library says.
const mostNotes = 20

// within lets a library work, and ends waiting when ctx ends: the work itself cannot be ended, and the program is about
// to. What the library writes to standard error by itself is returned, since it may quote what a stranger wrote.
func within[T any](ctx context.Context, work func() (T, error)) (value T, notes []string, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return value, nil, fmt.Errorf("make a pipe: %w", err)
	}
	stderr := os.Stderr
	os.Stderr = w
	log.SetOutput(w)
	restore := func() {
		os.Stderr = stderr
		log.SetOutput(stderr)
		_ = w.Close() // nothing is waited for
	}
	said := make(chan []string, 1)
	go func() {
		var lines []string
		scanner := bufio.NewScanner(r)
		for scanner.Scan() {
			if line := strings.TrimSpace(scanner.Text()); line != "" && len(lines) < mostNotes {
				lines = append(lines, line)
			}
		}
		if scanner.Err() != nil { // a line that is too long: the library must not wait for a reader
			_, _ = io.Copy(io.Discard, r)
		}
		_ = r.Close() // it was only read
		said <- lines
	}()
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		var res result
		defer func() {
			if p := recover(); p != nil {
				res.err = fmt.Errorf("the library panicked: %v", p)
			}
			done <- res
		}()
		res.value, res.err = work()
	}()
	select {
	case res := <-done:
		restore()
		return res.value, <-said, res.err
	case <-ctx.Done():
		restore()
		return value, nil, context.Cause(ctx)
	}
}
