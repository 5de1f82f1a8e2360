// Package cmd puts the commands of netproof together and chooses their exit code.
package cmd
