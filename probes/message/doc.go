// Package message is what a probe and its answer look like on the wire, the same over TCP, UDP and SCTP.
//
//	request:  'n' 'p' version kind='q'|'l'  len(1) nonce
//	answer:   'n' 'p' version kind='a'      len(1) nonce  len(2, big endian) endpoint  len(1) uid
//	refusal:  'n' 'p' version kind='x'
//
// Both are self-delimiting, so that a TCP reader knows when it has all of it, and an answer differs from its request: a
// foreign server that merely echoes bytes is known as such. A request of another version is refused aloud, since a
// silent server looks like a network policy. Only requests are ever answered, so two servers cannot keep each other
// busy.
package message
