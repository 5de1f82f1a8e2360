// Package model holds the nouns of netproof: endpoints, probes, verdicts, cells, and the run that is made of them.
//
// It is pure: no input or output, nothing of Kubernetes, no clock. Everything else in the project speaks in these
// types, and the JSON report is [Run] written down.
package model
