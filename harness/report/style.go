package report

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// TableOptions are what can be chosen about a table.
type TableOptions struct {
	// Verbose shows every matrix, every mismatch and every step of a walk, however many there are.
	Verbose bool
	// Width is the number of columns of the terminal; 0 means 120. Matrices that are wider fold.
	Width int
	// Color adds colour. Nothing is said by colour alone.
	Color bool
	// ASCII uses no other characters, for terminals that are not UTF-8. Names are written as they are.
	ASCII bool
}

const defaultWidth = 120

// DetectTable chooses the options for a terminal, or for what is not one, from the environment:
//
//   - The character set is that of LC_ALL, LC_CTYPE or LANG, the first that is not empty. A bare container sets none of
//     them and is looked at through a terminal that can do UTF-8, so none means UTF-8.
//   - NO_COLOR (no-color.org) turns colour off, CLICOLOR_FORCE turns it on; otherwise a terminal that is not dumb gets
//     it.
func DetectTable(getenv func(string) string, terminal bool, columns int) TableOptions {
	opts := TableOptions{Width: columns}
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(getenv(name)); locale != "" {
			opts.ASCII = !strings.Contains(locale, "utf-8") && !strings.Contains(locale, "utf8")
			break
		}
	}
	switch {
	case getenv("NO_COLOR") != "":
	case getenv("CLICOLOR_FORCE") != "" && getenv("CLICOLOR_FORCE") != "0":
		opts.Color = true
	default:
		opts.Color = terminal && getenv("TERM") != "dumb" && getenv("CLICOLOR") != "0"
	}
	return opts
}

// symbol is what stands for a cell in a matrix.
type symbol rune

const (
	symNone        symbol = ' '
	symSelf        symbol = '.'
	symAllow       symbol = 'a'
	symDeny        symbol = 'd'
	symUnknown     symbol = '?'
	symFlaky       symbol = '~'
	symUnsupported symbol = '-'
)

// mark is what stands around a symbol.
type mark rune

const (
	markNone     mark = ' '
	markMismatch mark = '['
	markOpen     mark = '('
	markOneSided mark = '*'
)

// entry is one field of a matrix; entries are comparable.
type entry struct {
	symbol symbol
	mark   mark
}

// Colours, as ANSI codes.
const (
	colorGreen  = "32"
	colorRed    = "1;31"
	colorYellow = "33"
	colorDim    = "2"
	colorBold   = "1"
)

// style writes symbols and colours as a terminal can show them.
type style struct{ ascii, color bool }

func (s style) paint(code, text string) string {
	if !s.color || code == "" || strings.TrimSpace(text) == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) symbol(sym symbol) string {
	switch sym {
	case symAllow:
		return s.pick("✓", "+")
	case symDeny:
		return s.pick("✗", "x")
	default:
		return string(rune(sym))
	}
}

func (s style) pick(unicode, ascii string) string {
	if s.ascii {
		return ascii
	}
	return unicode
}

// entry renders a field of a matrix, three columns wide.
func (s style) entry(e entry) string {
	sym := s.symbol(e.symbol)
	switch e.mark {
	case markMismatch:
		return s.paint(colorRed, "["+sym+"]")
	case markOpen:
		return s.paint(colorDim, "("+sym+")")
	case markOneSided:
		return " " + sym + "*"
	}
	code := ""
	switch e.symbol {
	case symAllow:
		code = colorGreen
	case symUnknown, symFlaky:
		code = colorYellow
	case symSelf, symUnsupported:
		code = colorDim
	}
	return " " + s.paint(code, sym) + " "
}

// columns counts the columns that text takes on a terminal; colours take none, East Asian wide characters two.
func columns(text string) int {
	n := 0
	escape := false
	for _, r := range text {
		switch {
		case escape:
			escape = r != 'm'
		case r == '\x1b':
			escape = true
		case unicode.Is(unicode.Mn, r):
		default:
			switch width.LookupRune(r).Kind() {
			case width.EastAsianWide, width.EastAsianFullwidth:
				n += 2
			default:
				n++
			}
		}
	}
	return n
}

func padRight(text string, to int) string {
	return text + strings.Repeat(" ", max(0, to-columns(text)))
}

// center puts text in the middle, a little to the left when it cannot be exact.
func center(text string, to int) string {
	left := max(0, to-columns(text)) / 2
	return padRight(strings.Repeat(" ", left)+text, to)
}

// wrap breaks text at spaces into lines of at most the given columns, the first with one indent, all others with
// another. A word that is longer than a line stays whole.
func wrap(text, first, rest string, limit int) []string {
	return wrapWords(strings.Split(text, " "), first, rest, limit)
}

// wrapWords is wrap for words that may hold spaces themselves.
func wrapWords(words []string, first, rest string, limit int) []string {
	var lines []string
	line, empty := first, true
	for _, word := range words {
		if !empty && columns(line)+1+columns(word) > limit {
			lines = append(lines, line)
			line, empty = rest, true
		}
		if empty && word == "" {
			continue
		}
		if !empty {
			line += " "
		}
		line += word
		empty = false
	}
	return append(lines, line)
}

// duration renders milliseconds for people.
func duration(ms int64) string {
	switch {
	case ms < 1000:
		return fmt.Sprintf("%d ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.2f s", float64(ms)/1000)
	case ms < 60_000:
		return fmt.Sprintf("%.1f s", float64(ms)/1000)
	default:
		return fmt.Sprintf("%d min %d s", ms/60_000, ms%60_000/1000)
	}
}

// micros renders a round-trip time.
func micros(us int64) string {
	switch {
	case us < 100:
		return fmt.Sprintf("%.2f ms", float64(us)/1000)
	case us < 10_000:
		return fmt.Sprintf("%.1f ms", float64(us)/1000)
	default:
		return duration(us / 1000)
	}
}
