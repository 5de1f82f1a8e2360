package wire

import (
	"os"
	"testing"

	"github.com/netproof/netproof/probes/internal/netlab"
)

func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }
