package cluster

import (
	"crypto/rand"
	"encoding/hex"
)

// NewRunID makes a short id that is a valid label value and unlikely to meet another.
func NewRunID() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // crypto/rand does not fail: it ends the program instead
	return hex.EncodeToString(b[:])
}
