package hosttools

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Tool is a program of the machine that some part of a local cluster calls.
type Tool struct {
	// Name is the executable.
	Name string
	// Purpose says who calls it and what for.
	Purpose string
	// Optional tools make something better or easier; without the others no cluster starts.
	Optional bool
}

// Go is the toolchain that builds the engines. It is not needed once they are built, so [For] does not list it.
var Go = Tool{Name: "go", Purpose: "builds the upstream programs once"}

// For lists the tools that a cluster with the given network plugin ("calico", "none") calls.
func For(cni string) []Tool {
	tools := []Tool{
		{Name: "nft", Purpose: "kube-proxy programs Services with it"},
	}
	if cni == "calico" {
		tools = append(tools,
			Tool{Name: "iptables", Purpose: "Felix programs policies with it"},
			Tool{Name: "ip6tables", Purpose: "Felix programs policies for IPv6 with it"},
			Tool{Name: "ipset", Purpose: "Felix keeps the addresses that policies select in its sets"},
			Tool{Name: "conntrack", Optional: true,
				Purpose: "Felix forgets the connections of a pod that is gone with it"},
		)
	}
	return append(tools,
		Tool{Name: "ip", Optional: true, Purpose: "shows addresses and routes in a cluster shell"},
		Tool{Name: "nsenter", Optional: true, Purpose: "enters a pod's network namespace in a cluster shell"},
	)
}

// systemDirs are where system administration programs lie, whether or not PATH has them.
var systemDirs = []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"}

// SearchPath extends a PATH by the folders of system administration programs that it lacks, at its end.
func SearchPath(path string) string {
	dirs := filepath.SplitList(path)
	for _, dir := range systemDirs {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// Find gives the absolute path of a program, looked for in SearchPath of the environment's PATH, and "" where there is
// none.
func Find(name string) string {
	for _, dir := range filepath.SplitList(SearchPath(os.Getenv("PATH"))) {
		if !filepath.IsAbs(dir) {
			continue // a program from the current folder is nothing to run as root
		}
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// Missing gives those of the tools that the machine does not have.
func Missing(tools []Tool) []Tool {
	return missing(tools, Find)
}

func missing(tools []Tool, find func(string) string) []Tool {
	var gone []Tool
	for _, tool := range tools {
		if find(tool.Name) == "" {
			gone = append(gone, tool)
		}
	}
	return gone
}

// MissingError says which tools a cluster cannot do without, and how to get them.
type MissingError struct {
	Tools []Tool
	// Install is the command, or the words, that install all of them on this machine.
	Install string
}

func (e *MissingError) Error() string {
	var b strings.Builder
	b.WriteString("this machine lacks programs that the cluster needs:")
	for _, tool := range e.Tools {
		fmt.Fprintf(&b, "\n  %s: %s", tool.Name, tool.Purpose)
	}
	b.WriteString("\ninstall with: " + e.Install)
	return b.String()
}

// Check gives a [*MissingError] when a tool that a cluster with the given network plugin cannot do without is missing.
func Check(cni string) error {
	var gone []Tool
	for _, tool := range Missing(For(cni)) {
		if !tool.Optional {
			gone = append(gone, tool)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return &MissingError{Tools: gone, Install: Install(ThisOS(), gone, os.Geteuid() == 0)}
}
