// Package probes sends and serves probe traffic, and turns what happened on the wire into evidence.
//
// A [Request] names one connection to try; a [Response] says what became of it. An [Agent] acts in one endpoint's
// network namespace: it sends requests, serves the endpoint's ports, and remembers which nonces its servers saw.
// How a batch reaches an agent (a call in this process, JSON lines over an exec stream) is the business of a
// transport, not of the probing.
package probes
