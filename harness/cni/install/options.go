package install

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/netproof/netproof/harness/model"
)

// Options are what a user can choose about an installation, and what the cluster decides about it.
type Options struct {
	// Manifest is a file or URL to install instead of what the vendor publishes. #sha256=HEX at the end of a URL pins
	// its content.
	Manifest string
	// Chart is a folder, a .tgz file, its URL, or an oci:// reference of a Helm chart to install instead. A URL can be
	// pinned like a manifest's, a reference by its digest.
	Chart string
	// Set changes single settings. For a chart they are what helm's --set takes. For a manifest they set environment
	// variables of containers of its DaemonSets: CONTAINER/NAME=VALUE in that container, NAME=VALUE wherever a
	// container has such a variable already.
	Set []string
	// ImageOverrides replace images; the first that fits an image decides.
	ImageOverrides []Override
	// Mirror takes the place of the registry in every image that no override fits: with registry.local:5000/mirror,
	// quay.io/cilium/cilium:v1 becomes registry.local:5000/mirror/cilium/cilium:v1.
	Mirror string
	// Families of pods, the first is the primary one; those of the subnets when empty.
	Families []model.IPFamily
	// PodSubnets are the networks that pods get their addresses from, one for each family.
	PodSubnets []netip.Prefix
	// Kubernetes is the version of the cluster, which charts may ask for; see [DefaultKubernetes].
	Kubernetes string
	// CacheDir keeps what was downloaded; see [DefaultCacheDir].
	CacheDir string
	// HTTP makes the requests; nil for a client that takes its proxy from the environment.
	HTTP *http.Client
	// Stall is how long a download may stay without an answer or another byte; see [DefaultStall].
	Stall time.Duration
	// Progress hears in plain words what goes on; it may be nil.
	Progress func(string)
}

const (
	// DefaultKubernetes is the version that charts get where none is given.
	DefaultKubernetes = "v1.36.0"
	// DefaultStall is after how much silence a download is given up where nothing else is given.
	DefaultStall = 30 * time.Second
)

// CacheEnv is the environment variable that moves netproof's cache to another folder.
const CacheEnv = "NETPROOF_CACHE"

// DefaultCacheDir is where downloads are kept: the folder cni in $NETPROOF_CACHE, or in netproof's folder of the user's
// cache.
func DefaultCacheDir() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		return filepath.Join(dir, "cni"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder (set %s to choose one): %w", CacheEnv, err)
	}
	return filepath.Join(dir, "netproof", "cni"), nil
}

// withDefaults fills in what was left empty.
func (o Options) withDefaults() (Options, error) {
	if o.CacheDir == "" {
		dir, err := DefaultCacheDir()
		if err != nil {
			return Options{}, err
		}
		o.CacheDir = dir
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{}
	}
	if o.Stall == 0 {
		o.Stall = DefaultStall
	}
	if o.Kubernetes == "" {
		o.Kubernetes = DefaultKubernetes
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o, nil
}

// transport is what the HTTP client sends through.
func (o Options) transport() http.RoundTripper {
	if o.HTTP != nil && o.HTTP.Transport != nil {
		return o.HTTP.Transport
	}
	return http.DefaultTransport
}
