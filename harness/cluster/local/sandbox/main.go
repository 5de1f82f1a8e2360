package sandbox

import (
	"context"
	"fmt"
	"os"
)

// Main is the body of a TestMain whose tests are to run in a sandbox:
//
//	func TestMain(m *testing.M) { sandbox.Main(m) }
//
// The test binary runs again inside with the same arguments, so that every flag of go test works, and its exit code is
// passed on. It never returns. Where no sandbox can be made the tests fail.
func Main(m interface{ Run() int }) {
	Init()
	if Inside() {
		exit(m.Run())
	}
	code, err := Run(context.Background(), Command{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		exit(1)
	}
	exit(code)
}

// exit ends a process that is there for the sandbox, and that main has no part in.
func exit(code int) {
	os.Exit(code) //nolint:forbidigo // main of this process is not reached, or runs in another goroutine
}
