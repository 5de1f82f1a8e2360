//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// withoutResource is the bounding set of a machine that lacks CAP_SYS_RESOURCE.
const withoutResource = 0x1fffeffffff

func TestAMachineThatLacksNothingIsNotRestricted(t *testing.T) {
	assert.False(t, limits{bounding: 0x1ffffffffff}.restricted())
	assert.False(t, limits{bounding: 0x3fffffffff}.restricted(), "an older kernel knows fewer capabilities")
	assert.True(t, limits{bounding: withoutResource}.restricted())
}

func TestTheBoundingSetIsReadFromTheStatus(t *testing.T) {
	set, err := parseBounding("Name:\trunc\nCapEff:\t0\nCapBnd:\t000001fffeffffff\nCapAmb:\t0\n")
	require.NoError(t, err)
	assert.EqualValues(t, withoutResource, set)
	_, err = parseBounding("Name:\trunc\n")
	assert.ErrorContains(t, err, "no CapBnd")
}

func TestTheConfigurationIsFoundAmongTheArgumentsOfRunc(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"create as containerd calls it": {
			[]string{"--root", "/run/r", "--log", "/l", "--log-format", "json", "--systemd-cgroup", "create", "--bundle", "/b", "--pid-file", "/p", "id"},
			"/b/config.json",
		},
		"run with a short option":      {[]string{"run", "-b", "/b", "id"}, "/b/config.json"},
		"an equals sign":               {[]string{"--root=/run/r", "create", "--bundle=/b", "id"}, "/b/config.json"},
		"no bundle is the work folder": {[]string{"create", "id"}, "config.json"},
		"exec with a process file":     {[]string{"--root", "/run/r", "exec", "--process", "/p.json", "--detach", "id"}, "/p.json"},
		"exec with arguments":          {[]string{"exec", "id", "sh"}, ""},
		"a command that starts nothing": {
			[]string{"--root", "create", "delete", "--force", "id"}, "",
		},
		"no command": {[]string{"--version"}, ""},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, c.want, configFile(c.args)) })
	}
}

// process edits a configuration and gives its process.
func process(t *testing.T, content string, l limits) map[string]any {
	t.Helper()
	edited, err := edit([]byte(content), l)
	require.NoError(t, err)
	var document map[string]any
	require.NoError(t, json.Unmarshal(edited, &document))
	return document["process"].(map[string]any)
}

func TestAMissingCapabilityLeavesEverySet(t *testing.T) {
	p := process(t, `{"process":{"capabilities":{
		"bounding":["CAP_CHOWN","CAP_SYS_RESOURCE"],"effective":["CAP_SYS_RESOURCE"],"permitted":["CAP_CHOWN"]}}}`,
		limits{bounding: withoutResource})
	assert.Equal(t, map[string]any{
		"bounding": []any{"CAP_CHOWN"}, "effective": []any{}, "permitted": []any{"CAP_CHOWN"},
	}, p["capabilities"])
}

func TestAPrivilegedContainerGetsTheCapabilitiesThatOldEnginesDoNotKnow(t *testing.T) {
	const privileged = `["CAP_SYS_ADMIN","CAP_SYS_MODULE","CAP_SYS_RAWIO","CAP_SYS_BOOT"]`
	p := process(t, `{"process":{"capabilities":{"bounding":`+privileged+`,"effective":`+privileged+`,"inheritable":[]}}}`,
		limits{bounding: withoutResource})
	for _, kind := range []string{"bounding", "effective"} {
		assert.Subset(t, p["capabilities"].(map[string]any)[kind], []any{"CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE"})
	}
	assert.Empty(t, p["capabilities"].(map[string]any)["inheritable"])
}

func TestAnOOMScoreThatCannotBeSetIsRaised(t *testing.T) {
	l := limits{bounding: withoutResource, oomScoreAdj: -10}
	assert.EqualValues(t, -10, process(t, `{"process":{"oomScoreAdj":-998}}`, l)["oomScoreAdj"])
	assert.EqualValues(t, 500, process(t, `{"process":{"oomScoreAdj":500}}`, l)["oomScoreAdj"])
	l.bounding = 0x1ffffffffff
	assert.EqualValues(t, -998, process(t, `{"process":{"oomScoreAdj":-998}}`, l)["oomScoreAdj"])
}

func TestWhatAProcessFileOfExecSaysIsEditedToo(t *testing.T) {
	edited, err := edit([]byte(`{"args":["sh"],"capabilities":{"bounding":["CAP_SYS_RESOURCE"]}}`), limits{bounding: withoutResource})
	require.NoError(t, err)
	assert.JSONEq(t, `{"args":["sh"],"capabilities":{"bounding":[]}}`, string(edited))
}

func TestFieldsThatAreNotKnownSurvive(t *testing.T) {
	const content = `{"ociVersion":"9.9","process":{"args":["sh"]},"linux":{"resources":{"memory":{"limit":9223372036854771712}}}}`
	edited, err := edit([]byte(content), limits{bounding: withoutResource})
	require.NoError(t, err)
	assert.JSONEq(t, content, string(edited))
	assert.Contains(t, string(edited), "9223372036854771712")
}

func TestAFileThatIsNotThereIsLeftToRunc(t *testing.T) {
	assert.NoError(t, editFile(filepath.Join(t.TempDir(), "config.json"), limits{}))
}

func TestTheFileIsEditedInPlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"process":{"capabilities":{"bounding":["CAP_SYS_RESOURCE"]}}}`), 0o600))
	require.NoError(t, editFile(file, limits{bounding: withoutResource}))
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.JSONEq(t, `{"process":{"capabilities":{"bounding":[]}}}`, string(content))
	require.NoError(t, os.WriteFile(file, []byte(`{`), 0o600))
	assert.ErrorContains(t, editFile(file, limits{}), file)
}

func TestLimitsThatCannotBeRaisedAreLowered(t *testing.T) {
	const content = `{"process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":1000},{"type":"RLIMIT_NPROC","hard":50,"soft":50},{"type":"RLIMIT_NEW","hard":7,"soft":7}]}}`
	have := map[string]uint64{"RLIMIT_NOFILE": 20000, "RLIMIT_NPROC": 100}
	want := func(hard float64) []any {
		return []any{
			map[string]any{"type": "RLIMIT_NOFILE", "hard": hard, "soft": 1000.0},
			map[string]any{"type": "RLIMIT_NPROC", "hard": 50.0, "soft": 50.0}, map[string]any{"type": "RLIMIT_NEW", "hard": 7.0, "soft": 7.0},
		}
	}
	assert.Equal(t, want(20000), process(t, content, limits{bounding: withoutResource, hard: have})["rlimits"])
	assert.Equal(t, want(18446744073709551615), process(t, content, limits{bounding: 0x1ffffffffff, hard: have})["rlimits"])

	own, err := readLimits("/proc/self")
	require.NoError(t, err)
	var file unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &file))
	assert.Equal(t, file.Max, own.hard["RLIMIT_NOFILE"])
}
