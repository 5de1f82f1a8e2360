// Package kindnet knows clusters that run kindnet, kind's own network plugin.
package kindnet

import "github.com/netproof/netproof/harness/cni/install"

// Version of kindnetd that the node images of the kind release in go.mod bring.
const Version = "v20260820-69b56db7"

// Plugin is kindnet. There is nothing to install: kind puts it on every cluster whose default CNI is not disabled.
func Plugin() install.Plugin {
	return install.Plugin{
		Name:      "kindnet",
		Version:   Version,
		BroughtBy: "kind",
		Agent:     install.Agent{Selector: "app=kindnet", Container: "kindnet-cni"},
	}
}
