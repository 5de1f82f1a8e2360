// Package reach is the command netproof reach.
package reach
