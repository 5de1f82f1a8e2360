package main

import (
	"archive/tar"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cni/cilium"
	"github.com/netproof/netproof/harness/cni/install"
)

func TestCiliumIsThatOfThePlugin(t *testing.T) {
	assert.Equal(t, cilium.Version, ciliumVersion)
	assert.Equal(t, "cilium-"+strings.TrimPrefix(ciliumVersion, "v")+".tgz", ciliumChart, "as Helm names a packed chart")
}

// tarOf makes a tar file of files in the given order, with a folder, as an engine's data has them.
func tarOf(t *testing.T, files ...[2]string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "files.tar")
	f, err := os.Create(file)
	require.NoError(t, err)
	w := tar.NewWriter(f)
	require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "templates/", Mode: 0o755}))
	for _, entry := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: entry[0], Mode: 0o644, Size: int64(len(entry[1]))}))
		_, err := w.Write([]byte(entry[1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())
	return file
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: operator}
spec: {template: {spec: {containers: [{name: operator, image: "quay.io/cilium/operator-generic:v1.15.19"}]}}}
`

func TestThePackedChartIsOneThatNetproofInstalls(t *testing.T) {
	files := tarOf(t, [2]string{"Chart.yaml", "apiVersion: v2\nname: cilium\nversion: 1.15.19\n"}, [2]string{"templates/operator.yaml", deployment})
	chart := filepath.Join(t.TempDir(), ciliumChart)
	require.NoError(t, packChart(chart, "cilium", files))
	bundle, err := install.Load(t.Context(), cilium.Plugin(), install.Options{
		Chart: chart, CacheDir: t.TempDir(), PodSubnets: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")},
	})
	require.NoError(t, err)
	assert.Equal(t, []string{ciliumOperator + ":" + ciliumVersion}, bundle.Images())
}

func TestHalfATarFileIsNotTakenForAWholeOne(t *testing.T) {
	files := tarOf(t, [2]string{"Chart.yaml", strings.Repeat("x", 4096)})
	content, err := os.ReadFile(files)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files, content[:2048], 0o600))
	assert.ErrorContains(t, eachFile(files, func(string, []byte) error { return nil }), files)
}

// TestBpftoolIsAskedForWhatAnyoneMayKnow runs the script with an echo in the program's place.
func TestBpftoolIsAskedForWhatAnyoneMayKnow(t *testing.T) {
	script := strings.ReplaceAll(bpftoolScript, "exec /usr/sbin/bpftool", "echo")
	for args, want := range map[string]string{
		"-j feature probe": "-j feature probe unprivileged",
		"-j prog show":     "-j prog show",
	} {
		out, err := exec.Command("sh", append([]string{"-c", script, "bpftool"}, strings.Fields(args)...)...).Output()
		require.NoError(t, err)
		assert.Equal(t, want, strings.TrimSpace(string(out)))
	}
}

func TestWarningsOfAYoungerCompilerStopNothing(t *testing.T) {
	script := strings.ReplaceAll(clangScript, "exec clang-19", "echo")
	out, err := exec.Command("sh", "-c", script, "clang", "-Werror", "-c", "bpf_lxc.c").Output()
	require.NoError(t, err)
	assert.Equal(t, "-Werror -c bpf_lxc.c -Wno-error -w", strings.TrimSpace(string(out)), "the last of contrary options counts")
}

func TestTheCompilerComesWithoutACLibrarysHeaders(t *testing.T) {
	got := closure(map[string][]string{
		"clang-19": {"libllvm19", "libc6-dev", "libstdc++-12-dev", "binutils"}, "libllvm19": {"libc6"}, "libc6": nil,
		"libc6-dev": {"linux-libc-dev"}, "linux-libc-dev": nil, "libstdc++-12-dev": nil, "binutils": nil,
	}, []string{"clang-19"}, ciliumTools.withoutPackages)
	assert.Equal(t, []string{"clang-19", "libc6", "libllvm19"}, got)
	assert.False(t, slices.Contains(withoutPackages, "binutils"), "other images keep their own list")
}
