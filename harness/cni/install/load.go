package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/netproof/netproof/harness/readfile"
)

// Bundle is a plugin, ready to be applied.
type Bundle struct {
	// Plugin is the name of the plugin.
	Plugin string
	// Version is the tag of the agent's image, before any override; empty where it has none.
	Version string
	// Source is the URL, file or reference that the objects come from.
	Source string
	// Objects in the order in which they are applied. None when somebody else brings the plugin.
	Objects []*unstructured.Unstructured
	// Changes say in words what was changed about the source.
	Changes []string
	// Digest of what is applied: the sha256 over the objects, each as canonical JSON and a line feed.
	Digest string
	// progress hears which object is being applied.
	progress func(string)
}

// Images lists every image that pods of the bundle run, sorted. Those that a program in one of them starts in its turn,
// as operators do, are not known.
func (b *Bundle) Images() []string { return imagesOf(b.Objects) }

// Load reads the plugin from where the options say, else from where its vendor publishes it, and makes of it what is to
// be applied.
func Load(ctx context.Context, plugin Plugin, opts Options) (*Bundle, error) {
	bundle, err := load(ctx, plugin, opts)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", plugin.Name, err)
	}
	return bundle, nil
}

func load(ctx context.Context, plugin Plugin, opts Options) (*Bundle, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if opts.Manifest != "" && opts.Chart != "" {
		return nil, errors.New("a manifest and a chart were given: choose one")
	}
	if plugin.Source.URL == "" {
		return broughtByOthers(plugin, opts)
	}
	network, err := networkOf(opts.Families, opts.PodSubnets)
	if err != nil {
		return nil, err
	}
	bundle, err := opts.read(ctx, plugin, network)
	if err != nil {
		return nil, err
	}
	if len(bundle.Objects) == 0 {
		return nil, fmt.Errorf("%s holds no object", bundle.Source)
	}
	bundle.Plugin, bundle.Version, bundle.progress = plugin.Name, versionOf(bundle.Objects, plugin.Agent), opts.Progress
	changes, err := opts.replaceImages(bundle.Objects)
	if err != nil {
		return nil, err
	}
	bundle.Changes = append(bundle.Changes, changes...)
	sortObjects(bundle.Objects)
	bundle.Digest, err = objectsDigest(bundle.Objects)
	return bundle, err
}

// broughtByOthers is the empty bundle. Images of such a plugin were chosen by who brings it, so overrides mean others.
func broughtByOthers(plugin Plugin, opts Options) (*Bundle, error) {
	if opts.Manifest != "" || opts.Chart != "" || len(opts.Set) > 0 {
		return nil, fmt.Errorf("%s comes with %s: there is no manifest or chart of it to choose or to set anything in", plugin.Name, plugin.BroughtBy)
	}
	digest, err := objectsDigest(nil)
	return &Bundle{Plugin: plugin.Name, Version: plugin.Version, Source: plugin.BroughtBy, Digest: digest, progress: opts.Progress}, err
}

// read gives the objects as the vendor or the user wants them, fitted to the network.
func (o Options) read(ctx context.Context, plugin Plugin, network Network) (*Bundle, error) {
	if o.Manifest != "" || o.Chart == "" && plugin.Source.Chart == "" {
		return o.readManifest(ctx, plugin, network)
	}
	c, source, err := o.chart(ctx, plugin.Source)
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if plugin.Values != nil {
		values = plugin.Values(network)
	}
	objects, changes, err := o.render(c, plugin.Name, values, o.Set)
	if err != nil {
		return nil, err
	}
	return &Bundle{Source: source, Objects: objects, Changes: changes}, nil
}

func (o Options) readManifest(ctx context.Context, plugin Plugin, network Network) (*Bundle, error) {
	content, source, err := o.manifest(ctx, plugin.Source)
	if err != nil {
		return nil, err
	}
	objects, err := decode(source, content)
	if err != nil {
		return nil, err
	}
	var changes []string
	if plugin.Adapt != nil {
		if changes, err = plugin.Adapt(objects, network); err != nil {
			return nil, fmt.Errorf("fit %s to the cluster: %w", source, err)
		}
	}
	set, err := setAll(objects, o.Set)
	if err != nil {
		return nil, err
	}
	return &Bundle{Source: source, Objects: objects, Changes: append(changes, set...)}, nil
}

// manifest returns the text of the manifest and where it comes from.
func (o Options) manifest(ctx context.Context, vendor Source) (content []byte, source string, err error) {
	switch {
	case o.Manifest == "":
		content, err = o.cached(vendor.Digest, path.Base(vendor.URL),
			func(content []byte) error {
				if got := sha256Of(content); got != vendor.Digest {
					return &DigestError{What: vendor.URL, Want: vendor.Digest, Got: got, Fix: compareByHand}
				}
				return nil
			},
			func() ([]byte, error) { return o.fetch(ctx, vendor.URL, vendor.Digest, manifestLimit) })
		return content, vendor.URL, err
	case isURL(o.Manifest):
		content, err = o.fetchURL(ctx, o.Manifest, manifestLimit)
	default:
		if content, err = readfile.File(ctx, o.Manifest, manifestLimit); err != nil {
			err = fmt.Errorf("read manifest: %w", err)
		}
	}
	return content, o.Manifest, err
}

// chart returns the chart and where it comes from.
func (o Options) chart(ctx context.Context, vendor Source) (c *chart.Chart, source string, err error) {
	switch {
	case o.Chart == "":
		c, err = o.chartFromArchive(ctx, vendor)
		return c, vendor.URL + ", " + vendor.Chart, err
	case strings.HasPrefix(o.Chart, ociScheme):
		c, err = o.chartFromRegistry(ctx, o.Chart)
		return c, o.Chart, err
	}
	var content []byte
	if isURL(o.Chart) {
		content, err = o.fetchURL(ctx, o.Chart, chartLimit)
	} else if info, statErr := os.Stat(o.Chart); statErr == nil && info.IsDir() {
		c, err = chartFromFolder(o.Chart)
		return c, o.Chart, err
	} else if content, err = readfile.File(ctx, o.Chart, chartLimit); err != nil {
		err = fmt.Errorf("read chart: %w", err)
	}
	if err != nil {
		return nil, "", err
	}
	c, err = loadPacked(o.Chart, content)
	return c, o.Chart, err
}

// versionOf is the tag of the agent's image in the DaemonSets.
func versionOf(objects []*unstructured.Unstructured, agent Agent) string {
	for _, object := range objects {
		for _, c := range containersOf(object) {
			reference, _ := c["image"].(string)
			if i, err := parseImage(reference); err == nil && c["name"] == agent.Container && i.tag != "" {
				return i.tag
			}
		}
	}
	return ""
}

// objectsDigest relies on encoding/json writing the keys of maps in order.
func objectsDigest(objects []*unstructured.Unstructured) (string, error) {
	h := sha256.New()
	for _, object := range objects {
		text, err := object.MarshalJSON()
		if err != nil {
			return "", fmt.Errorf("write %s: %w", nameOf(object), err)
		}
		h.Write(text)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// sortObjects puts what others need before them; among objects of equal standing the source's order stays.
func sortObjects(objects []*unstructured.Unstructured) {
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return standing(a.GetKind()) - standing(b.GetKind()) })
}

// kindOrder lists kinds of objects by when they are applied. Kinds that are not listed, such as a plugin's own, come
// where the empty string is: after what they may be kinds of, before the programs that read them.
var kindOrder = [][]string{
	{"Namespace"},
	{customResourceDefinition},
	{"PriorityClass", "ResourceQuota", "LimitRange"},
	{"ServiceAccount", "Secret", "ConfigMap"},
	{"ClusterRole", "Role"},
	{"ClusterRoleBinding", "RoleBinding"},
	{"Service"},
	{""},
	{"DaemonSet", "Deployment", "StatefulSet", "ReplicaSet", "Pod", "Job", "CronJob"},
	// What asks a program before it lets an object in, or hands a request on to one.
	{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "APIService"},
}

const customResourceDefinition = "CustomResourceDefinition"

func standing(kind string) int {
	others := 0
	for i, kinds := range kindOrder {
		if slices.Contains(kinds, kind) {
			return i
		}
		if kinds[0] == "" {
			others = i
		}
	}
	return others
}
