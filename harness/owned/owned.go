// Package owned tells whether somebody else could change what lies at a path. It is for what netproof trusts once it
// lies there: programs that it runs, and the caches of them.
//
// Nobody else could if every folder on the way, and every link, belongs to the user that netproof runs as or to root,
// and lets nobody else write to it. A folder with the sticky bit, such as /tmp, may be open to all, since only owners
// replace what is in it. A group may write if it is the user's own, with no other member: many systems give each user
// such a group, and a umask that lets it write.
//
// For root this leaves root alone. So root does not run what lies in the home of an ordinary user.
package owned

import "fmt"

// Error says who could change what lies at a path.
type Error struct {
	// Path is the file, folder or link that is not ours alone. It is, or lies on the way to, the path that was asked
	// about.
	Path string
	// Reason says why, such as "it belongs to user 1000".
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Reason) }
