//go:build linux

package controlplane

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/cluster/local/process"
)

// SecurePort is where the API server listens, on the first address of its Config.
const SecurePort = 6443

// pollInterval is how often a starting program is asked whether it is ready.
const pollInterval = 10 * time.Millisecond

// Config says what to run and where.
type Config struct {
	// Etcd, APIServer and ControllerManager are paths of the programs.
	Etcd, APIServer, ControllerManager string
	// Dir takes data and credentials. It must exist.
	Dir string
	// Addresses are the API server's, the primary family first; nodes reach the first.
	Addresses []netip.Addr
	// ServiceCIDRs and PodCIDRs hold one network per IP family, the primary family first.
	ServiceCIDRs, PodCIDRs []netip.Prefix
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	cfg        Config
	group      *process.Group
	thread     *process.Thread
	creds      *credentials
	kubeconfig string

	etcd, apiserver *process.Process
}

// Start starts etcd and the API server in the namespaces of thread and returns at once; WaitReady waits for them.
func Start(group *process.Group, thread *process.Thread, cfg Config) (*ControlPlane, error) {
	creds, err := newCredentials(cfg.Dir, append(cfg.Addresses, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()))
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{cfg: cfg, group: group, thread: thread, creds: creds, kubeconfig: filepath.Join(cfg.Dir, "kubeconfig")}
	if err := c.WriteKubeconfig(c.kubeconfig, c.server()); err != nil {
		return nil, err
	}
	if c.etcd, err = group.Start(thread, process.Command{
		Name: "etcd",
		Path: cfg.Etcd,
		Args: etcdArgs(cfg.Dir),
		Env:  environment("GOGC=50", "GOMAXPROCS=2"),
	}); err != nil {
		return nil, err
	}
	if c.apiserver, err = group.Start(thread, process.Command{
		Name: "kube-apiserver",
		Path: cfg.APIServer,
		Args: apiserverArgs(cfg, creds),
		Env:  environment("GOMAXPROCS=4"),
	}); err != nil {
		return nil, err
	}
	return c, nil
}

func etcdArgs(dir string) []string {
	return []string{
		"--name=netproof",
		"--data-dir=" + filepath.Join(dir, "etcd"),
		"--listen-client-urls=" + etcdURL,
		"--advertise-client-urls=" + etcdURL,
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=netproof=http://127.0.0.1:2380",
		// The data live in memory and end with the sandbox.
		"--unsafe-no-fsync",
		"--log-level=warn",
		"--quota-backend-bytes=268435456",
		"--snapshot-count=100000",
	}
}

// etcdURL is reached by the API server alone: it is in the fabric's network namespace, which pods and nodes are not in.
const etcdURL = "http://127.0.0.1:2379"

// StartControllers starts kube-controller-manager. It waits for the API server by itself.
func (c *ControlPlane) StartControllers() error {
	_, err := c.group.Start(c.thread, process.Command{
		Name: "kube-controller-manager",
		Path: c.cfg.ControllerManager,
		Args: controllerManagerArgs(c.cfg, c.kubeconfig),
		Env:  environment("GOGC=50", "GOMAXPROCS=2"),
		Nice: 5,
	})
	return err
}

// environment is what a child sees: nothing of the user's but the search path, and what is given. GOMAXPROCS keeps a
// child from taking memory in proportion to a large machine; GOGC makes one that works little collect its garbage more
// often.
func environment(extra ...string) []string {
	return append([]string{"PATH=" + hosttools.SearchPath(os.Getenv("PATH")), "HOME=/", "TMPDIR=" + os.TempDir()}, extra...)
}

// RESTConfig gives access to the API server as the cluster's one user, without a client-side rate limit.
func (c *ControlPlane) RESTConfig() *rest.Config {
	return &rest.Config{
		Host:            c.server(),
		BearerToken:     c.creds.token,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.creds.caPEM},
		QPS:             -1,
	}
}

// Kubeconfig is the path of a file with the same access for other programs.
func (c *ControlPlane) Kubeconfig() string { return c.kubeconfig }

// Address is that of the API server, with its port.
func (c *ControlPlane) Address() string {
	return net.JoinHostPort(c.cfg.Addresses[0].String(), fmt.Sprint(SecurePort))
}

func (c *ControlPlane) server() string { return "https://" + c.Address() }

// WriteKubeconfig writes a file, for this user alone, with access to the API server by another address of it.
func (c *ControlPlane) WriteKubeconfig(file, server string) error {
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["netproof"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: c.creds.caPEM}
	cfg.AuthInfos["netproof"] = &clientcmdapi.AuthInfo{Token: c.creds.token}
	cfg.Contexts["netproof"] = &clientcmdapi.Context{Cluster: "netproof", AuthInfo: "netproof"}
	cfg.CurrentContext = "netproof"
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}

// notAwaited are parts of the API server's readiness that it works on in the background, on a timer of a second, and
// that no client of a local cluster waits for: the built-in PriorityClasses.
var notAwaited = []string{"poststarthook/scheduling/bootstrap-system-priority-classes"}

// WaitReady returns when the API server says that it is ready, or when it or etcd has ended, or ctx has.
func (c *ControlPlane) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, p := range []*process.Process{c.etcd, c.apiserver} {
		go func() {
			if err := p.Watch(ctx); err != nil {
				cancel(err)
			}
		}()
	}
	transport, err := rest.TransportFor(c.RESTConfig())
	if err != nil {
		return fmt.Errorf("make client for the API server: %w", err)
	}
	client := &http.Client{Transport: transport}
	url := c.server() + "/readyz?verbose"
	for _, check := range notAwaited {
		url += "&exclude=" + check
	}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	last := "no answer yet"
	for {
		ok, said := ask(ctx, client, url)
		if ok {
			return nil
		}
		if ctx.Err() == nil {
			last = said
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the API server: %w; it last said: %s", context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}

// ask makes one readiness request; said is what stood in the way.
func ask(ctx context.Context, client *http.Client, url string) (ok bool, said string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return false, err.Error()
	}
	if resp.StatusCode == http.StatusOK {
		return true, ""
	}
	var failing []string
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "[-]") {
			failing = append(failing, strings.TrimSpace(line))
		}
	}
	return false, resp.Status + " " + strings.Join(failing, ", ")
}
