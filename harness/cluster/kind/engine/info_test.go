package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(t, err)
	return string(text)
}

func TestDockerInfoIsRead(t *testing.T) {
	info, err := ParseInfo(Docker, read(t, "docker-20.10.json"))
	require.NoError(t, err)
	assert.Equal(t, Info{
		Client: "28.2.2", Server: "20.10.24+dfsg1", Cgroup: 1, Root: "/var/lib/docker", Kernel: "6.18.44-fc-v782",
		System: "Debian GNU/Linux 12 (bookworm)", Arch: "x86_64", Driver: "overlay2", Runtime: "netproof",
	}, info)
}

func TestADaemonThatDoesNotAnswerIsAnError(t *testing.T) {
	// A client of 20.10 exits with 0 then.
	_, err := ParseInfo(Docker, `{"ServerErrors":["Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?"],"ClientInfo":{"Debug":false,"Context":"default","Plugins":[],"Warnings":null}}`)
	require.ErrorContains(t, err, "Cannot connect to the Docker daemon")
	assert.Equal(t, Unreachable, Recognize(Docker, err.Error()).Kind)
}

func TestRootlessAndUserNamespacesAreSecurityOptions(t *testing.T) {
	info, err := ParseInfo(Docker, `{"ServerVersion":"24.0.7","CgroupVersion":"2","SecurityOptions":["name=seccomp,profile=builtin","name=rootless","name=cgroupns","name=userns"]}`)
	require.NoError(t, err)
	assert.True(t, info.Rootless)
	assert.True(t, info.UserNamespace)
	assert.Equal(t, 2, info.Cgroup)
}

func TestVersionsAreComparedByTheirNumbers(t *testing.T) {
	for version, want := range map[string]bool{
		"20.10.24+dfsg1": true, "28.2.2": true, "v20.10": true, "19.03.15": false, "20.9.1": false, "21": true, "": true, "master": true, "20.x": true,
	} {
		assert.Equal(t, want, Since(version, 20, 10), version)
	}
}

func TestAnEngineOfAnotherNameIsRefused(t *testing.T) {
	_, err := Detect(t.Context(), "nerdctl")
	require.ErrorContains(t, err, "there are docker and podman")
	t.Setenv("PATH", t.TempDir())
	_, err = Detect(t.Context(), "")
	require.ErrorContains(t, err, "apt-get install docker.io")
	require.ErrorContains(t, err, "--provider local")
}

func TestADockerThatIsPodmanIsNotTakenForDocker(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker"), []byte("#!/bin/sh\necho podman version 4.3.1\n"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "podman"), []byte("#!/bin/sh\necho podman version 4.3.1\n"), 0o755))
	t.Setenv("PATH", dir+":/bin")
	e, err := Detect(t.Context(), "")
	require.NoError(t, err)
	assert.Equal(t, Podman, e.Name)
}
