//go:build linux

package local

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes/nsagent"
)

func TestAPortThatIsTakenIsNotHiddenByOneThatTheKernelLacks(t *testing.T) {
	lacking := fmt.Errorf("listen on 9000/SCTP: %w (%w)", nsagent.ErrNotSupported, unix.EPROTONOSUPPORT)
	taken := fmt.Errorf("listen on 80/TCP: %w", unix.EADDRINUSE)
	fates := map[model.Port]error{
		{Number: 9000, Protocol: model.SCTP}: lacking,
		{Number: 80, Protocol: model.TCP}:    taken,
		{Number: 81, Protocol: model.TCP}:    nil,
	}
	served := map[model.Port]bool{}
	on := func(ports ...model.Port) error {
		require.Len(t, ports, 1)
		served[ports[0]] = true
		return fates[ports[0]]
	}
	sctp, clash, free := model.Port{Number: 9000, Protocol: model.SCTP}, model.Port{Number: 80, Protocol: model.TCP}, model.Port{Number: 81, Protocol: model.TCP}
	for _, ports := range [][]model.Port{{sctp, clash, free}, {clash, sctp, free}} {
		clear(served)
		unsupported, err := listen(on, ports)
		require.ErrorIs(t, err, unix.EADDRINUSE)
		require.NotErrorIs(t, err, nsagent.ErrNotSupported)
		require.ErrorIs(t, unsupported, nsagent.ErrNotSupported)
		assert.Len(t, served, 3, "one that fails does not keep the others")
	}
	unsupported, err := listen(on, []model.Port{sctp, free})
	require.NoError(t, err, "a protocol that the kernel lacks is no failure")
	require.ErrorIs(t, unsupported, nsagent.ErrNotSupported)
	unsupported, err = listen(on, []model.Port{free})
	require.NoError(t, err)
	require.NoError(t, unsupported)
}
