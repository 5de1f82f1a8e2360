// Package initialize is the command netproof init.
package initialize
