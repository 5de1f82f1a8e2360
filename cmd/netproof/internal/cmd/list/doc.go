// Package list is the command netproof list.
package list
