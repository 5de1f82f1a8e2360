package scenario

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/plain"
)

// ErrNothing is matched by the errors of [Load] and [Select] that say that nothing was selected: an empty folder,
// manifests without a policy, a selector that fits no scenario.
var ErrNothing = errors.New("nothing to prove")

// Position is a place in a file that a user wrote. Line and column count from one, columns in characters.
type Position struct {
	File   string
	Line   int
	Column int
}

// String renders the position as editors and compilers do: file:line:column. The name of the file is made plain.
func (p Position) String() string {
	return fmt.Sprintf("%s:%d:%d", plain.Text(p.File), p.Line, p.Column)
}

// Short renders the position as file:line. The name of the file is made plain.
func (p Position) Short() string { return fmt.Sprintf("%s:%d", plain.Text(p.File), p.Line) }

// Problem is one thing that is wrong in a file.
type Problem struct {
	File    string
	Line    int
	Column  int
	Message string
	// Fix says what to write instead.
	Fix string
}

// Position is where the problem is.
func (p Problem) Position() Position { return Position{p.File, p.Line, p.Column} }

// Error renders the problem as file:line:column: message, and the fix on a line of its own.
func (p Problem) Error() string {
	s := p.Position().String() + ": " + p.Message
	if p.Fix != "" {
		s += "\n    fix: " + p.Fix
	}
	return s
}

// Problems is everything that is wrong in the files of a call, in the order of files and lines. It is an error that
// means that nothing was run.
type Problems []Problem

// maxShown bounds the problems that a message spells out: nobody fixes more than that at once.
const maxShown = 200

// Error renders the problems one after the other.
func (p Problems) Error() string {
	var lines []string
	for i := range p[:min(len(p), maxShown)] {
		lines = append(lines, p[i].Error())
	}
	if more := len(p) - len(lines); more > 0 {
		lines = append(lines, "and "+counted(more, "more problem"))
	}
	return strings.Join(lines, "\n")
}

// sorted orders problems by place and drops those that say the same of the same place.
func (p Problems) sorted() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.Compact(p)
}

// collector gathers problems.
type collector struct {
	problems Problems
	warnings Problems
}

func (c *collector) add(at Position, fix, format string, args ...any) {
	c.problems = append(c.problems, problemAt(at, fix, format, args...))
}

func (c *collector) warn(at Position, fix, format string, args ...any) {
	c.warnings = append(c.warnings, problemAt(at, fix, format, args...))
}

func problemAt(at Position, fix, format string, args ...any) Problem {
	// A problem without a place helps nobody: what is wrong with a file as a whole is said of its beginning.
	// What it quotes, in the message and in the fix, was chosen by whoever wrote the file.
	return Problem{at.File, max(at.Line, 1), max(at.Column, 1), plain.Text(fmt.Sprintf(format, args...)), plain.Text(fix)}
}

// counted renders a number with its noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (c *collector) count() int { return len(c.problems) }
