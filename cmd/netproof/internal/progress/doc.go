// Package progress tells a person what a run is doing: in one line that is rewritten on a terminal, in plain lines
// elsewhere.
package progress
