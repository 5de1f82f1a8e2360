//go:build linux

package nsagent

import (
	"os"
	"testing"

	"github.com/netproof/netproof/probes/internal/rerun"
)

func TestMain(m *testing.M) {
	os.Exit(rerun.InNamespaces(m)) // the tests ran in another process
}
