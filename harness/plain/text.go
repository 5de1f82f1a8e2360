package plain

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text makes a foreign string safe as a part of a line: on a terminal, in a log, in a report. The result is one line.
// White space that breaks or moves lines becomes a space, any other character that is not to be seen becomes U+FFFD,
// and a backslash breaks what a CI system would take for a command. Everything else stays as it is. Text of its own
// result changes nothing.
func Text(s string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 8)
	g := guard{start: true, strict: true}
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if unicode.IsSpace(r) && r != ' ' && Hidden(r) {
			r = ' '
		} else if Hidden(r) || r == utf8.RuneError {
			r = utf8.RuneError
		}
		g.before(&b, r, s[size:])
		b.WriteRune(r)
		s = s[size:]
	}
	return b.String()
}

// isPlain spares most strings the work: printable ASCII that has no part of a marker.
func isPlain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c > '~', c == '#', c == '_':
			return false
		}
	}
	return !strings.HasPrefix(strings.TrimLeft(s, " "), ":") && !isHeading(strings.TrimLeft(s, " "))
}

// Hidden tells whether a character cannot be seen, or changes how others are seen: all that [Text] does not let
// through. Spaces are seen.
func Hidden(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r < 0xa0:
		return true
	case r < 0xad:
		return false
	}
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs, unicode.Other_Default_Ignorable_Code_Point,
		unicode.Variation_Selector, unicode.Noncharacter_Code_Point)
}

// guard breaks the commands of CI systems in a line that goes by one character at a time. Their sources:
//
//   - GitHub, Gitea, Forgejo: a line that begins with ::, white space before it not counted; ##[ anywhere
//   - Azure Pipelines: ##vso[ anywhere, ##[ at the beginning
//   - TeamCity: ##teamcity[
//   - Buildkite: a line that begins with ---, +++, ~~~ or ^^^ folds those after it
//   - Travis, GitLab: travis_fold:, travis_time:, section_start:, section_end: fold
type guard struct {
	// start is true as long as the line has nothing but white space.
	start bool
	// strict breaks every ##, also that of a heading, which text from outside has no use for.
	strict bool
	// colon is true after a colon that begins the line, hashes counts those that the line just had.
	colon  bool
	hashes int
	// folding counts the characters of each of foldWords that were just there.
	folding [2]int
}

// byteWriter is where a guard puts what breaks a command.
type byteWriter interface{ WriteByte(byte) error }

// before writes what must stand before r, if anything; rest is what is known to follow it.
func (g *guard) before(b byteWriter, r rune, rest string) {
	switch {
	case r == '\n':
		*g = guard{start: true, strict: g.strict}
		return
	case g.start && r == ':' && strings.HasPrefix(rest, ":"), g.start && isHeading(string(r)+rest),
		g.colon && r == ':',
		g.hashes > 0 && r == '#' && (g.strict || opens(rest)),
		g.hashes > 1 && opens(string(r)),
		g.folding[0] == len(foldWords[0]) && folds(r, rest), g.folding[1] == len(foldWords[1]) && folds(r, rest):
		_ = b.WriteByte('\\') // neither a builder nor a buffer fails
		g.start, g.hashes = false, 0
	}
	for i, word := range foldWords {
		switch n := g.folding[i]; {
		case n < len(word) && r == rune(word[n]):
			g.folding[i]++
		case r == rune(word[0]):
			g.folding[i] = 1
		default:
			g.folding[i] = 0
		}
	}
	g.colon = g.start && r == ':'
	g.start = g.start && unicode.IsSpace(r)
	if r == '#' {
		g.hashes++
	} else {
		g.hashes = 0
	}
}

// opens tells whether text that stands after ## makes a command of it.
func opens(text string) bool {
	return text != "" && (text[0] == '[' || text[0] >= 'a' && text[0] <= 'z' || text[0] >= 'A' && text[0] <= 'Z')
}

// isHeading tells whether Buildkite would fold the lines below this one.
func isHeading(text string) bool {
	for _, marker := range []string{"---", "+++", "~~~", "^^^"} {
		if strings.HasPrefix(text, marker) {
			return true
		}
	}
	return false
}

// foldWords begin the markers by which Travis and GitLab fold or time lines. Their first letters do not come again in
// them.
var foldWords = [2]string{"travis_", "section_"}

// folds tells whether r and what follows it ends such a marker.
func folds(r rune, rest string) bool {
	switch r {
	case 'f':
		return strings.HasPrefix(rest, "old:")
	case 't':
		return strings.HasPrefix(rest, "ime:")
	case 's':
		return strings.HasPrefix(rest, "tart:")
	case 'e':
		return strings.HasPrefix(rest, "nd:")
	}
	return false
}
