//go:build !linux

package rerun

import "testing"

// InNamespaces runs the tests where they are: those that need namespaces are not compiled here.
func InNamespaces(m *testing.M) int { return m.Run() }
