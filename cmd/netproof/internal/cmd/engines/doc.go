// Package engines is the command netproof engines.
package engines
