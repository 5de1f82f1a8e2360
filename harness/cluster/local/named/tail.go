//go:build linux

package named

// tailSize is how much a tail keeps.
const tailSize = 64 << 10

// tail is a writer that keeps the last of what is written to it. The zero value is empty.
type tail struct{ buf []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	// Move only when half of it is old, so that each byte is moved at most once.
	if len(t.buf) > 2*tailSize {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	return len(p), nil
}

// Bytes returns a copy of what is kept.
func (t *tail) Bytes() []byte {
	return append([]byte(nil), t.buf[max(0, len(t.buf)-tailSize):]...)
}

func (t *tail) String() string { return string(t.Bytes()) }
