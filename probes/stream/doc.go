// Package stream keeps a connection to an agent somewhere else: [Agent] connects by a [Dial], again and with growing
// pauses after the connection was lost, and speaks the protocol of package wire over it. What was in flight on a lost
// connection is an error, never an outcome.
package stream
