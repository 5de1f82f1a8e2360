// Package doctor finds out what a machine lacks for local clusters, and how to fix it.
//
// [Gather] looks at the machine and changes nothing outside a sandbox of its own; [Judge] is a pure function of what
// was found. A check is missing only when no cluster can be made without it; what only some scenarios need is
// limited.
package doctor
