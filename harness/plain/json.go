package plain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON writes a value as JSON with a newline at its end, indented if indent is not empty. Whoever parses it gets every
// character back; whoever looks at it sees none that is hidden, and a CI system finds no command in it: both are
// written as \uXXXX. HTML is not escaped, since ids of cells hold ->.
func JSON(v any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return escape(b.Bytes()), nil
}

// WriteJSON writes a value as [JSON] for programs, indented.
func WriteJSON(w io.Writer, v any) error {
	text, err := JSON(v, "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// escape escapes within the strings of a JSON text: nothing that it looks for can stand elsewhere.
func escape(text []byte) []byte {
	out := make([]byte, 0, len(text))
	last := rune(0)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == '\n':
			out = append(out, '\n')
		case Hidden(r) && r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		case Hidden(r), r == '#' && last == '#', last == '_' && folds(r, string(text[i+size:min(len(text), i+8)])):
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, text[i:i+size]...)
		}
		last = r
		i += size
	}
	return out
}
