package e2eprovider

import (
	"context"
	"errors"
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/e2e-framework/klient"
	"sigs.k8s.io/e2e-framework/support"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/kind"
)

// Provider is an E2EClusterProvider over a provider of netproof's. It stands for one cluster at a time, and is for one
// goroutine.
type Provider struct {
	// provide makes a provider for a version of Kubernetes, "" for the default.
	provide func(version string) (cluster.Provider, error)
	opts    cluster.Options
	version string
	path    string

	made       cluster.Cluster
	kubeconfig string
}

var _ support.E2EClusterProvider = (*Provider)(nil)

// Kind lends clusters of kind. WithVersion chooses the node image.
func Kind(k kind.Options, opts cluster.Options) *Provider {
	return &Provider{opts: opts, provide: func(version string) (cluster.Provider, error) {
		if version != "" {
			k.KubernetesVersion, k.NodeImage = version, ""
		}
		return kind.New(k)
	}}
}

// Existing lends a cluster that is there. Destroying it only lets go of it.
func Existing(e existing.Options, opts cluster.Options) *Provider {
	return Of(existing.New(e), opts)
}

// Of lends the clusters of any provider, such as the local one inside of its sandbox. The version cannot be chosen.
func Of(p cluster.Provider, opts cluster.Options) *Provider {
	return &Provider{opts: opts, provide: func(version string) (cluster.Provider, error) {
		if version != "" {
			return nil, fmt.Errorf("version %s of Kubernetes: this provider has one version, which cannot be chosen", version)
		}
		return p, nil
	}}
}

// Cluster is the cluster, nil as long as it was not made: for proofs on it with package run.
func (p *Provider) Cluster() cluster.Cluster { return p.made }

// WithName implements E2EClusterProvider.
func (p *Provider) WithName(name string) support.E2EClusterProvider {
	p.opts.Name = name
	return p
}

// WithVersion implements E2EClusterProvider.
func (p *Provider) WithVersion(version string) support.E2EClusterProvider {
	p.version = version
	return p
}

// WithPath implements E2EClusterProvider. There is no program to be found under another path, so Create fails after it.
func (p *Provider) WithPath(path string) support.E2EClusterProvider {
	p.path = path
	return p
}

// WithOpts implements E2EClusterProvider.
func (p *Provider) WithOpts(opts ...support.ClusterOpts) support.E2EClusterProvider {
	for _, o := range opts {
		o(p)
	}
	return p
}

// SetDefaults implements E2EClusterProvider. Defaults are those of the provider below.
func (p *Provider) SetDefaults() support.E2EClusterProvider { return p }

// Create implements E2EClusterProvider, and returns the path of a kubeconfig. Arguments are refused: there is no
// program that would take them.
func (p *Provider) Create(ctx context.Context, args ...string) (string, error) {
	switch {
	case p.made != nil:
		return "", errors.New("the cluster was made already")
	case len(args) > 0:
		return "", fmt.Errorf("create cluster: arguments %q: choose with options instead", args)
	case p.path != "":
		return "", fmt.Errorf("create cluster: path %s: kind is a library here, there is no program", p.path)
	}
	provider, err := p.provide(p.version)
	if err != nil {
		return "", err
	}
	made, err := provider.Create(ctx, p.opts)
	if err != nil {
		return "", err
	}
	p.made = made
	if p.kubeconfig, err = p.GenerateKubeconfig(); err != nil {
		return "", errors.Join(err, p.Destroy(context.WithoutCancel(ctx)))
	}
	return p.kubeconfig, nil
}

// CreateWithConfig implements E2EClusterProvider, and fails: what the cluster is like is said by options, which
// netproof checks.
func (p *Provider) CreateWithConfig(_ context.Context, configFile string) (string, error) {
	return "", fmt.Errorf("create cluster from %s: %w: choose with options instead", configFile, errors.ErrUnsupported)
}

// GetKubeconfig implements E2EClusterProvider.
func (p *Provider) GetKubeconfig() string { return p.kubeconfig }

const contextName = "netproof"

// GetKubectlContext implements E2EClusterProvider.
func (p *Provider) GetKubectlContext() string { return contextName }

// GenerateKubeconfig implements E2EClusterProvider: it writes a file that gives access to the cluster until Destroy.
func (p *Provider) GenerateKubeconfig(...string) (string, error) {
	if p.made == nil {
		return "", errNotMade
	}
	if p.kubeconfig != "" {
		return p.kubeconfig, nil
	}
	f, err := os.CreateTemp("", "netproof-kubeconfig-*")
	if err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	if err := errors.Join(f.Close(), clientcmd.WriteToFile(kubeconfigOf(p.made.RESTConfig()), f.Name())); err != nil {
		return "", fmt.Errorf("write kubeconfig: %w", err)
	}
	return f.Name(), nil
}

func kubeconfigOf(cfg *rest.Config) clientcmdapi.Config {
	out := clientcmdapi.NewConfig()
	out.Clusters[contextName] = &clientcmdapi.Cluster{
		Server: cfg.Host, TLSServerName: cfg.ServerName, InsecureSkipTLSVerify: cfg.Insecure,
		CertificateAuthority: cfg.CAFile, CertificateAuthorityData: cfg.CAData,
	}
	out.AuthInfos[contextName] = &clientcmdapi.AuthInfo{
		ClientCertificate: cfg.CertFile, ClientCertificateData: cfg.CertData, ClientKey: cfg.KeyFile, ClientKeyData: cfg.KeyData,
		Token: cfg.BearerToken, TokenFile: cfg.BearerTokenFile, Username: cfg.Username, Password: cfg.Password, Exec: cfg.ExecProvider,
	}
	out.Contexts[contextName] = &clientcmdapi.Context{Cluster: contextName, AuthInfo: contextName}
	out.CurrentContext = contextName
	return *out
}

var errNotMade = errors.New("the cluster was not made yet")

// exporter is a cluster whose logs can be exported.
type exporter interface {
	ExportLogs(ctx context.Context, dir string) error
}

// ExportLogs implements E2EClusterProvider. The error matches [errors.ErrUnsupported] where the provider has no logs.
func (p *Provider) ExportLogs(ctx context.Context, dest string) error {
	if e, ok := p.made.(exporter); ok {
		return e.ExportLogs(ctx, dest)
	}
	return fmt.Errorf("export logs to %s: %w", dest, errors.ErrUnsupported)
}

// Destroy implements E2EClusterProvider. Without a cluster it does nothing.
func (p *Provider) Destroy(ctx context.Context) error {
	if p.made == nil {
		return nil
	}
	err := p.made.Close(ctx)
	p.made = nil
	if p.kubeconfig != "" {
		err = errors.Join(err, os.Remove(p.kubeconfig))
		p.kubeconfig = ""
	}
	return err
}

// WaitForControlPlane implements E2EClusterProvider. A cluster that was made is ready, network plugin included; this
// looks whether it still is.
func (p *Provider) WaitForControlPlane(ctx context.Context, _ klient.Client) error {
	if p.made == nil {
		return errNotMade
	}
	return p.made.Health(ctx)
}

// KubernetesRestConfig implements E2EClusterProvider.
func (p *Provider) KubernetesRestConfig() *rest.Config {
	if p.made == nil {
		return nil
	}
	return p.made.RESTConfig()
}
