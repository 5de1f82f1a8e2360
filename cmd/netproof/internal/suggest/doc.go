// Package suggest finds what somebody may have meant.
package suggest
