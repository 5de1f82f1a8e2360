// Package version is the command netproof version.
package version
