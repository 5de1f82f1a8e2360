// Package explain is the command netproof explain.
package explain
