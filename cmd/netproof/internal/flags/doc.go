// Package flags holds the values that command-line flags can take: checked when they are parsed, with errors that list
// what there is.
package flags
