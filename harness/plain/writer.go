package plain

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"unicode/utf8"
)

// Writer passes lines on to another writer, as [Text] does with a string, but lets line feeds and headings through. It
// is the last door before a terminal, a log or a file. It may be used from several goroutines, if the writer behind it
// may.
type Writer struct {
	w      io.Writer
	styles bool

	mu    sync.Mutex
	guard guard
	// cut is the beginning of a character whose end was not written yet.
	cut []byte
}

// NewWriter makes a writer before w. With styles it lets through what netproof itself draws with: its colours, and the
// return to the beginning of a line that is then erased. Without, it lets no escape sequence through.
func NewWriter(w io.Writer, styles bool) *Writer {
	return &Writer{w: w, styles: styles, guard: guard{start: true}}
}

// styles are the escape sequences of netproof's own, longest first where one begins as another does.
var styles = []string{"\r\x1b[K", "\x1b[0m", "\x1b[1m", "\x1b[1;31m", "\x1b[2m", "\x1b[32m", "\x1b[33m"}

// Write passes p on in one piece. It returns the error of the writer behind it, and otherwise len(p), whatever it took
// out. The beginning of a character is kept until its end is there.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rest := string(append(w.cut, p...))
	w.cut = nil
	var b bytes.Buffer
	b.Grow(len(rest) + 16)
	for len(rest) > 0 {
		if style := w.style(rest); style != "" {
			if style[0] == '\r' {
				w.guard = guard{start: true}
			}
			b.WriteString(style)
			rest = rest[len(style):]
			continue
		}
		if !utf8.FullRuneInString(rest) {
			w.cut = []byte(rest)
			break
		}
		r, size := utf8.DecodeRuneInString(rest)
		rest = rest[size:]
		switch {
		case r == '\r' && strings.HasPrefix(rest, "\n"):
			continue
		case r == '\r', r == '\t':
			r = ' '
		case r != '\n' && Hidden(r):
			r = utf8.RuneError
		}
		w.guard.before(&b, r, rest)
		b.WriteRune(r)
	}
	if _, err := w.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// style gives the escape sequence that text begins with, if it is let through.
func (w *Writer) style(text string) string {
	if !w.styles || text[0] != '\r' && text[0] != '\x1b' {
		return ""
	}
	for _, s := range styles {
		if strings.HasPrefix(text, s) {
			return s
		}
	}
	return ""
}

// Unwrap gives the writer behind a [Writer], and any other writer as it is: for programs of the user, which draw what
// they like, and for protocols.
func Unwrap(w io.Writer) io.Writer {
	if p, ok := w.(*Writer); ok {
		return p.w
	}
	return w
}
