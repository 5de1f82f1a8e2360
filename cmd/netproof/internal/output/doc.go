// Package output is the pair of flags --format and --output, and the writing of reports to where they say.
package output
