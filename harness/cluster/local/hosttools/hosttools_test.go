package hosttools

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	debian = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nID=debian\n"
	mint   = "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"
	fedora = "NAME='Fedora Linux'\nID=fedora\nPRETTY_NAME='Fedora Linux 42'\n"
	rocky  = "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"
	alpine = "# small\nID=alpine\n\nVERSION_ID=3.22.0\n"
	nixos  = "ID=nixos\n"
)

func TestInstallNamesTheCommandOfTheDistribution(t *testing.T) {
	nft, iptables, ip6tables := Tool{Name: "nft"}, Tool{Name: "iptables"}, Tool{Name: "ip6tables"}
	conntrack, nsenter := Tool{Name: "conntrack"}, Tool{Name: "nsenter"}
	cases := []struct {
		name  string
		os    string
		root  bool
		tools []Tool
		want  string
	}{
		{"Debian as root", debian, true, []Tool{nft, iptables, ip6tables},
			"apt-get install -y --no-install-recommends nftables iptables"},
		{"a child of Ubuntu, as a user", mint, false, []Tool{nft},
			"sudo apt-get install -y --no-install-recommends nftables"},
		{"Fedora", fedora, false, []Tool{iptables, conntrack}, "sudo dnf install -y iptables-nft conntrack-tools"},
		{"a relative of RHEL", rocky, true, []Tool{nsenter}, "dnf install -y util-linux"},
		{"Alpine", alpine, true, []Tool{nsenter, nft}, "apk add util-linux-misc nftables"},
		{"an unknown distribution", nixos, true, []Tool{nft, ip6tables},
			"your distribution's packages of nft, ip6tables"},
		{"no os-release at all", "", true, []Tool{nft}, "your distribution's packages of nft"},
		{"Go alone", debian, true, []Tool{Go}, "Go 1.26 or newer as https://go.dev/doc/install says"},
		{"Go and another", alpine, true, []Tool{Go, nft},
			"apk add nftables; and Go 1.26 or newer as https://go.dev/doc/install says"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, Install(ParseOSRelease(c.os), c.tools, c.root))
		})
	}
}

func TestEveryToolHasAPackageInEveryFamily(t *testing.T) {
	for _, f := range families {
		for _, tool := range For("calico") {
			assert.NotEmpty(t, f.packages[tool.Name], "%s in the packages of %v", tool.Name, f.ids)
		}
	}
}

// The script of `make setup` works before anything is built, so it has a list of its own.
func TestSetupScriptInstallsTheSamePackages(t *testing.T) {
	script := filepath.Join("..", "..", "..", "..", "ci", "setup.sh")
	for _, system := range []string{debian, mint, fedora, rocky, alpine} {
		file := filepath.Join(t.TempDir(), "os-release")
		require.NoError(t, os.WriteFile(file, []byte(system), 0o600))
		cmd := exec.CommandContext(t.Context(), "sh", script, "--command")
		cmd.Env = append(os.Environ(), "NETPROOF_OS_RELEASE="+file)
		out, err := cmd.Output()
		require.NoError(t, err, system)
		want := Install(ParseOSRelease(system), For("calico"), true)
		assert.Equal(t, want, strings.TrimSpace(string(out)), system)
	}
}

func TestFindLooksWhereAnOrdinaryUsersPathDoesNot(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "netproof-test-tool")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "netproof-test-text"), nil, 0o600))
	t.Setenv("PATH", "")
	before := systemDirs
	t.Cleanup(func() { systemDirs = before })
	systemDirs = []string{t.TempDir(), dir}

	assert.Equal(t, program, Find("netproof-test-tool"))
	assert.Empty(t, Find("netproof-test-text"), "a file that is not executable is not a program")
	assert.Empty(t, Find("netproof-test-absent"))
}

func TestFindIgnoresTheCurrentFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "netproof-test-tool"), []byte("#!/bin/sh\n"), 0o700))
	t.Chdir(dir)
	t.Setenv("PATH", ".")
	assert.Empty(t, Find("netproof-test-tool"))
}

func TestSearchPathKeepsTheUsersOrderAndAddsEachFolderOnce(t *testing.T) {
	assert.Equal(t, "/opt/bin:/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/bin", SearchPath("/opt/bin:/usr/sbin"))
}

func TestMissingErrorNamesToolsPurposesAndCommand(t *testing.T) {
	gone := missing(For("calico"), func(name string) string {
		if name == "ipset" || name == "nft" {
			return ""
		}
		return "/usr/sbin/" + name
	})
	require.Len(t, gone, 2)
	err := &MissingError{Tools: gone, Install: Install(ParseOSRelease(debian), gone, false)}
	assert.Equal(t, `this machine lacks programs that the cluster needs:
  nft: kube-proxy programs Services with it
  ipset: Felix keeps the addresses that policies select in its sets
install with: sudo apt-get install -y --no-install-recommends nftables ipset`, err.Error())
}

func TestClusterWithoutNetworkPluginNeedsNoPolicyTools(t *testing.T) {
	for _, tool := range For("none") {
		assert.NotContains(t, []string{"iptables", "ip6tables", "ipset", "conntrack"}, tool.Name)
	}
}
