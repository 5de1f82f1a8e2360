package nsagent

import (
	"os"
	"testing"

	"github.com/netproof/netproof/probes/internal/rerun"
)

func TestMain(m *testing.M) {
	os.Exit(rerun.InNamespaces(m)) //nolint:forbidigo // the tests ran in another process: its exit code is ours
}
