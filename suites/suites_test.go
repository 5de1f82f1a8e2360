package suites

import (
	"testing"

	"github.com/netproof/netproof/harness/prooftest"
)

func TestMain(m *testing.M) { prooftest.Main(m) }

func TestQuickstart(t *testing.T) { prooftest.Prove(t, "../fixtures/quickstart") }

func TestCore(t *testing.T) { prooftest.Prove(t, "../fixtures/core") }
