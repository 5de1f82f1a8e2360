package hosttools

import (
	"os"
	"slices"
	"strings"
)

// OS is what os-release(5) tells of a Linux distribution.
type OS struct {
	// ID is the distribution, such as "debian", and Like the ones it descends from, nearest first.
	ID   string
	Like []string
	// Name is how it calls itself.
	Name string
}

// ThisOS reads /etc/os-release, or /usr/lib/os-release where that is missing. It gives the zero OS where both are.
func ThisOS() OS {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if content, err := os.ReadFile(path); err == nil {
			return ParseOSRelease(string(content))
		}
	}
	return OS{}
}

// ParseOSRelease reads the text of an os-release file: shell-like assignments, values quoted or not. Lines that are not
// assignments are passed over, as os-release(5) asks.
func ParseOSRelease(text string) OS {
	var parsed OS
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		value = unquote(value)
		switch name {
		case "ID":
			parsed.ID = strings.ToLower(value)
		case "ID_LIKE":
			parsed.Like = strings.Fields(strings.ToLower(value))
		case "PRETTY_NAME":
			parsed.Name = value
		}
	}
	return parsed
}

func unquote(value string) string {
	if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
		return strings.ReplaceAll(value[1:len(value)-1], `\`, "")
	}
	return value
}

// family is a group of distributions with one package manager.
type family struct {
	ids     []string
	install string
	// packages gives the package of a tool.
	packages map[string]string
}

var families = []family{
	{
		ids:     []string{"debian", "ubuntu"},
		install: "apt-get install -y --no-install-recommends",
		packages: map[string]string{
			"nft": "nftables", "iptables": "iptables", "ip6tables": "iptables", "ipset": "ipset",
			"ip": "iproute2", "nsenter": "util-linux", "conntrack": "conntrack",
		},
	},
	{
		ids:     []string{"fedora", "rhel", "centos"},
		install: "dnf install -y",
		packages: map[string]string{
			"nft": "nftables", "iptables": "iptables-nft", "ip6tables": "iptables-nft", "ipset": "ipset",
			"ip": "iproute", "nsenter": "util-linux", "conntrack": "conntrack-tools",
		},
	},
	{
		ids:     []string{"alpine"},
		install: "apk add",
		packages: map[string]string{
			"nft": "nftables", "iptables": "iptables", "ip6tables": "iptables", "ipset": "ipset",
			"ip": "iproute2", "nsenter": "util-linux-misc", "conntrack": "conntrack-tools",
		},
	},
}

func familyOf(system OS) (family, bool) {
	for _, id := range append([]string{system.ID}, system.Like...) {
		for _, f := range families {
			if slices.Contains(f.ids, id) {
				return f, true
			}
		}
	}
	return family{}, false
}

// goWords is how to get Go: distributions carry it, but seldom a release that is new enough.
const goWords = "Go 1.26 or newer as https://go.dev/doc/install says"

// Install gives the command that installs tools on a system, with sudo unless the user is root, and words instead of a
// command for a system that is not known and for Go. It depends on nothing but its arguments.
func Install(system OS, tools []Tool, root bool) string {
	f, known := familyOf(system)
	var packages, names []string
	var wantsGo bool
	for _, tool := range tools {
		if tool.Name == Go.Name {
			wantsGo = true
			continue
		}
		name, ok := f.packages[tool.Name]
		if !ok {
			name = tool.Name
		}
		if !slices.Contains(packages, name) {
			packages = append(packages, name)
		}
		names = append(names, tool.Name)
	}
	var steps []string
	switch {
	case len(packages) == 0:
	case known && root:
		steps = append(steps, f.install+" "+strings.Join(packages, " "))
	case known:
		steps = append(steps, "sudo "+f.install+" "+strings.Join(packages, " "))
	default:
		steps = append(steps, "your distribution's packages of "+strings.Join(names, ", "))
	}
	if wantsGo {
		steps = append(steps, goWords)
	}
	return strings.Join(steps, "; and ")
}
