package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"helm.sh/helm/v3/pkg/chart"
)

// chartLayer is the media type by which registries hold Helm charts (helm.sh, HIPs, hip-0006).
const chartLayer types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

const ociScheme = "oci://"

// ErrNoImage says that a registry answers and does not have what was asked for.
var ErrNoImage = errors.New("the registry has no such image")

// ResolveDigest asks the registry that an image would be pulled from, overrides and mirror applied, for the digest of
// its manifest, or of the index where the image is made for several platforms. The digest is computed from what the
// registry sends; where the reference has one itself, the two must be the same. Credentials are those that docker login
// has stored. The error matches [ErrNoImage] where the registry does not have the image.
func ResolveDigest(ctx context.Context, reference string, opts Options) (string, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return "", err
	}
	actual, _, err := opts.replaced(reference)
	if err != nil {
		return "", fmt.Errorf("resolve image %s: %w", reference, err)
	}
	what := reference
	if actual != reference {
		what += " (" + actual + ")"
	}
	ref, err := name.ParseReference(actual)
	if err != nil {
		return "", fmt.Errorf("resolve image %s: %w", what, err)
	}
	manifest, err := remote.Get(ref, opts.remote(ctx)...)
	if err != nil {
		return "", fmt.Errorf("resolve image %s: %w", what, registryError(err))
	}
	return manifest.Digest.String(), nil
}

// remote are the settings for a registry. A refused connection is tried again for about a second, which is what a
// registry needs that is being restarted.
func (o Options) remote(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(o.transport()),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("netproof"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Steps: 3}),
	}
}

// registryError marks answers that say that there is no such thing.
func registryError(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%w: %w", ErrNoImage, err)
	}
	return err
}

// chartFromRegistry pulls a chart. Every part of it is compared with its digest as it comes.
func (o Options) chartFromRegistry(ctx context.Context, reference string) (*chart.Chart, error) {
	o.Progress("pulling " + reference)
	ref, err := name.ParseReference(strings.TrimPrefix(reference, ociScheme))
	if err != nil {
		return nil, fmt.Errorf("pull chart %s: %w", reference, err)
	}
	pulled, err := remote.Image(ref, o.remote(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("pull chart %s: %w", reference, registryError(err))
	}
	content, err := readChartLayer(pulled)
	if err != nil {
		return nil, fmt.Errorf("pull chart %s: %w", reference, registryError(err))
	}
	return loadPacked(reference, content)
}

func readChartLayer(pulled v1.Image) ([]byte, error) {
	layers, err := pulled.Layers()
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		if media, err := layer.MediaType(); err != nil || media != chartLayer {
			continue
		}
		if size, err := layer.Size(); err != nil || size > chartLimit {
			return nil, fmt.Errorf("it is longer than the %d bytes that are taken", chartLimit)
		}
		content, err := layer.Compressed()
		if err != nil {
			return nil, err
		}
		defer content.Close()
		return io.ReadAll(content)
	}
	return nil, errors.New("it is not a Helm chart: it has no layer of the type " + string(chartLayer))
}
