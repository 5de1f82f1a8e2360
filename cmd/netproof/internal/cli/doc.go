// Package cli holds what all commands share: the streams they talk through, the errors that decide the exit code, and
// the context that ends with a signal.
package cli
