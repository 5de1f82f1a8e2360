package hosttools

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The oracle is the kernel: in a folder that holds the files and nothing else, each program runs.
func TestTheFilesAreAllThatTheProgramsNeed(t *testing.T) {
	files, err := Files(t.Context(), "calico")
	require.NoError(t, err)
	dir := t.TempDir()
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), content, 0o755))
		// A link may name it by another path, which the library that was found by it has too.
		real, err := filepath.EvalSymlinks(file)
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(real)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, real), content, 0o755))
	}
	for _, args := range [][]string{
		{"nft", "--version"}, {"ipset", "--version"}, {"ip", "-V"}, {"nsenter", "--version"},
		{"iptables", "-m", "set", "--help"}, {"ip6tables", "-m", "multiport", "--help"},
		{"iptables-nft-restore", "--version"}, {"iptables-save", "--version"},
	} {
		path := Find(args[0])
		if path == "" {
			continue // optional, or of another distribution
		}
		require.True(t, slices.Contains(files, path), path)
		cmd := exec.CommandContext(t.Context(), path, args[1:]...)
		// A user namespace lets anybody change the root folder, and ipset asks the network namespace that is its own.
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Chroot:      dir,
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
		cmd.Dir, cmd.Env = "/", []string{"PATH=/nothing"}
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%q: %s", args, out)
	}
}

func TestListsOfLibrariesAreRead(t *testing.T) {
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"of glibc": {
			"\tlinux-vdso.so.1 (0x00007ffd9a3f2000)\n\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f52fd62e000)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f52fd6f6000)\n",
			[]string{"/lib/x86_64-linux-gnu/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"},
		},
		"of musl": {
			"\t/lib/ld-musl-x86_64.so.1 (0x7f0000000000)\n\tlibmnl.so.0 => /usr/lib/libmnl.so.0 (0x7f0000001000)\n",
			[]string{"/lib/ld-musl-x86_64.so.1", "/usr/lib/libmnl.so.0"},
		},
		"of a static program": {"\tstatically linked\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseList(tc.text)
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
	_, err := parseList("\tlibnft.so.1 => not found\n")
	assert.ErrorContains(t, err, "libnft.so.1 is not found")
}

func TestAScriptInThePlaceOfAProgramIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nft")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+strings.Repeat("#", 100)+"\n"), 0o755))
	err := addProgram(t.Context(), map[string]bool{}, path)
	assert.ErrorContains(t, err, "first in PATH")
}
