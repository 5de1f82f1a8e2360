package owned

import "errors"

// errWindows says that nothing is trusted here: who could change a file on Windows is said by lists of rights on it and
// on all folders above, which netproof does not read.
var errWindows = errors.New("netproof cannot tell on Windows who else could change a file")

// Resolve refuses every path.
func Resolve(path string) (string, error) { return "", &Error{Path: path, Reason: errWindows.Error()} }

// MakeFolder refuses every path, and makes nothing.
func MakeFolder(path string) (string, error) { return Resolve(path) }
