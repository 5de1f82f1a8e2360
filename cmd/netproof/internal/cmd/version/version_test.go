package version

import (
	"bytes"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
)

func TestTheVersionComesFromTheLinkerOrTheBuild(t *testing.T) {
	stamped := &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"},
	}}
	for name, tc := range map[string]struct {
		build           *debug.BuildInfo
		release, commit string
		want            string
	}{
		"a release":               {stamped, "v1.2.3", "", "netproof v1.2.3 (0123456789ab, modified) go"},
		"a build in a clone":      {stamped, "", "", "netproof devel (0123456789ab, modified) go"},
		"a build by make":         {&debug.BuildInfo{}, "", "fedcba9876543210", "netproof devel (fedcba987654) go"},
		"go install of a version": {&debug.BuildInfo{Main: debug.Module{Version: "v0.4.0"}}, "", "", "netproof v0.4.0 go"},
		"nothing known":           {&debug.BuildInfo{}, "", "", "netproof devel go"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, write(cli.Streams{Out: &out}, infoOf(tc.build, tc.release, tc.commit), "text"))
			assert.Contains(t, out.String(), tc.want)
		})
	}
}
