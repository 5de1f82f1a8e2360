package sandbox

import "os"

// enterInit finishes the way into a sandbox that [Enter] began.
func enterInit(control *os.File) { _ = control }
