//go:build !linux

package sandbox

import "context"

// A sandbox is made of namespaces, which only Linux has. Elsewhere no process is ever in one, and [Run], [Check] and
// [Enter] return an [UnavailableError] with the fix.

// Namespaces are those of a sandbox, of which there is none here.
type Namespaces struct{}

// Close does nothing.
func (*Namespaces) Close() error { return nil }

// OpenNamespaces returns the error of [Run].
func OpenNamespaces(int) (*Namespaces, error) { return nil, ReadFacts().refuse() }

// Init does nothing: no process is started for a sandbox.
func Init() {}

// Inside is false.
func Inside() bool { return false }

// HasOwn is false: there is no inside.
func HasOwn(string) bool { return false }

// Run returns an [UnavailableError].
func Run(context.Context, Command) (int, error) { return 0, ReadFacts().refuse() }

// Check returns the error of [Run].
func Check(context.Context) error { return ReadFacts().refuse() }

// Enter returns the error of [Run].
func Enter(context.Context, *Namespaces, Command, EnterOptions) (int, error) {
	return 0, ReadFacts().refuse()
}
