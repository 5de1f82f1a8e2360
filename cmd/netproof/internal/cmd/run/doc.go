// Package run is the command netproof run.
package run
