package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/netproof/netproof/harness/cluster/local/named"
	"github.com/netproof/netproof/harness/cluster/local/sandbox"
	"github.com/netproof/netproof/harness/model"
)

// Detail is what a named cluster says about itself.
type Detail struct {
	Cluster model.Cluster `json:"cluster"`
	// Kubeconfig is a file that gives access to the cluster from inside its sandbox.
	Kubeconfig string `json:"kubeconfig"`
	// Outside is a file with the same access from elsewhere on the machine, by its path outside. It ends with the
	// cluster, and only the cluster's user can open it.
	Outside string `json:"kubeconfigOutside,omitempty"`
}

// DetailOf reads what a named cluster said about itself.
func DetailOf(info named.Info) (Detail, error) {
	var d Detail
	if err := json.Unmarshal(info.Detail, &d); err != nil {
		return d, fmt.Errorf("cluster %s was made by another version of netproof: %w", info.Name, err)
	}
	if d.Outside != "" {
		// The files of the sandbox are seen through its PID 1, by nobody but who may trace that process: proc(5), root.
		d.Outside = fmt.Sprintf("/proc/%d/root%s", info.PID, d.Outside)
	}
	return d, nil
}

// Named is a local cluster that keeps running in the background.
type Named struct {
	Name string
	Engines
	Nodes int
	// IPFamily is one of [providers.IPFamilyNames].
	IPFamily string
	// Says is where the cluster speaks until it is ready.
	Says io.Writer
}

// Create makes the cluster, and returns when it is ready. This program serves it, called as netproof cluster create.
func (n Named) Create(ctx context.Context) (Detail, error) {
	if err := Prepare(ctx, n.Engines); err != nil {
		return Detail{}, err
	}
	args := []string{
		os.Args[0], "cluster", "create", n.Name, "--cni", n.CNI, "--nodes", fmt.Sprint(n.Nodes), "--ip-family", n.IPFamily,
	}
	if n.Dir != "" {
		dir, err := filepath.Abs(n.Dir)
		if err != nil {
			return Detail{}, fmt.Errorf("find engines: %w", err)
		}
		args = append(args, "--engine-dir", dir)
	}
	info, err := named.Create(ctx, n.Name, named.Options{Args: args, Progress: n.Says})
	if err != nil {
		return Detail{}, err
	}
	return DetailOf(info)
}

// RerunIn is [Inside.Rerun] on a named cluster, with other arguments if they are not nil.
func (i Inside) RerunIn(ctx context.Context, name string, args []string, stdin *os.File, deadline time.Time) (code int, done bool, err error) {
	return rerun(func(c sandbox.Command) (int, error) {
		return named.Enter(context.WithoutCancel(ctx), name, c, sandbox.EnterOptions{})
	}, command(args, stdin, i.environ(deadline)))
}
