package install

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Override replaces images.
type Override struct {
	// From is a repository (quay.io/cilium/cilium), one image of it (with its tag or digest), or a beginning of
	// repositories that ends with a slash (quay.io/cilium/).
	From string
	// To is what takes its place. Where it has neither tag nor digest, those of the image stay.
	To string
}

// ParseOverride reads FROM=TO.
func ParseOverride(text string) (Override, error) {
	from, to, ok := strings.Cut(text, "=")
	o := Override{from, to}
	if !ok {
		return o, fmt.Errorf("read image override %q: it is not FROM=TO", text)
	}
	return o, o.check()
}

func (o Override) String() string { return o.From + "=" + o.To }

func (o Override) check() error {
	if o.From == "" || o.To == "" {
		return fmt.Errorf("read image override %q: both sides are needed, as in quay.io/cilium/=registry.local/cilium/", o)
	}
	if o.isPrefix() {
		return nil
	}
	if strings.HasSuffix(o.To, "/") {
		return fmt.Errorf("read image override %q: end both sides with a slash, or none", o)
	}
	_, err := parseImage(o.From)
	_, err2 := parseImage(o.To)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("read image override %q: %w", o, err)
	}
	return nil
}

func (o Override) isPrefix() bool { return strings.HasSuffix(o.From, "/") }

// apply returns what takes the image's place; ok is false when the override is for other images.
func (o Override) apply(i image) (replacement string, ok bool) {
	if o.isPrefix() {
		rest, ok := strings.CutPrefix(i.repository(), withRegistry(o.From))
		return strings.TrimSuffix(o.To, "/") + "/" + rest + i.suffix(), ok && rest != ""
	}
	from, err := parseImage(o.From)
	if err != nil || from.repository() != i.repository() ||
		from.tag != "" && from.tag != i.tag || from.digest != "" && from.digest != i.digest {
		return "", false
	}
	if to, err := parseImage(o.To); err == nil && to.suffix() != "" {
		return o.To, true
	}
	return o.To + i.suffix(), true
}

// image is a reference to an image, in parts.
type image struct {
	registry string
	path     string
	// tag and digest are empty where the reference has none.
	tag    string
	digest string
}

// parseImage reads a reference as container runtimes do: without a registry it is one of Docker Hub.
func parseImage(text string) (image, error) {
	rest, digest, hasDigest := strings.Cut(text, "@")
	if hasDigest && !validDigest(digest) {
		return image{}, fmt.Errorf("image %q: %q is not a sha256 digest", text, digest)
	}
	tag := ""
	if colon := strings.LastIndex(rest, ":"); colon > strings.LastIndex(rest, "/") {
		if _, err := name.NewTag(rest); err != nil {
			return image{}, fmt.Errorf("image %q: %w", text, err)
		}
		rest, tag = rest[:colon], rest[colon+1:]
	}
	repository, err := name.NewRepository(rest)
	if err != nil {
		return image{}, fmt.Errorf("image %q: %w", text, err)
	}
	registry := repository.RegistryStr()
	if registry == name.DefaultRegistry {
		registry = dockerHub
	}
	return image{registry, repository.RepositoryStr(), tag, digest}, nil
}

const dockerHub = "docker.io"

func (i image) repository() string { return i.registry + "/" + i.path }

// suffix is what follows the repository.
func (i image) suffix() string {
	suffix := ""
	if i.tag != "" {
		suffix = ":" + i.tag
	}
	if i.digest != "" {
		suffix += "@" + i.digest
	}
	return suffix
}

// withRegistry adds Docker Hub to the beginning of a repository that names no registry, by the rule of container
// runtimes.
func withRegistry(prefix string) string {
	first, _, _ := strings.Cut(prefix, "/")
	if first == "localhost" || strings.ContainsAny(first, ".:") {
		return prefix
	}
	return dockerHub + "/" + prefix
}

// replaced says which image is used in the place of another, and by which override, or -1.
func (o Options) replaced(reference string) (replacement string, by int, err error) {
	i, err := parseImage(reference)
	if err != nil {
		return "", -1, err
	}
	for n, override := range o.ImageOverrides {
		if to, ok := override.apply(i); ok {
			return to, n, nil
		}
	}
	if o.Mirror != "" {
		return strings.TrimSuffix(o.Mirror, "/") + "/" + i.path + i.suffix(), -1, nil
	}
	return reference, -1, nil
}

// replaceImages applies overrides and mirror to all images of the objects and says what it changed. An override that
// fits none is an error: the image that it was meant for would come from where the user did not want it to come from.
func (o Options) replaceImages(objects []*unstructured.Unstructured) ([]string, error) {
	for _, override := range o.ImageOverrides {
		if err := override.check(); err != nil {
			return nil, err
		}
	}
	before := imagesOf(objects)
	used := map[int]bool{}
	changes := map[string]bool{}
	for _, object := range objects {
		err := eachImage(object.Object, func(reference string) (string, error) {
			to, by, err := o.replaced(reference)
			used[by] = true
			if to != reference {
				changes["image "+reference+" is "+to] = true
			}
			return to, err
		})
		if err != nil {
			return nil, fmt.Errorf("replace images of %s: %w", nameOf(object), err)
		}
	}
	for n, override := range o.ImageOverrides {
		if !used[n] {
			return nil, fmt.Errorf("image override %q fits no image; there are %s", override, strings.Join(before, ", "))
		}
	}
	return slices.Sorted(maps.Keys(changes)), nil
}

// imagesOf lists the images that the objects name, sorted and each once.
func imagesOf(objects []*unstructured.Unstructured) []string {
	found := map[string]bool{}
	for _, object := range objects {
		// The visitor returns no error, so neither does the visit.
		_ = eachImage(object.Object, func(reference string) (string, error) {
			found[reference] = true
			return reference, nil
		})
	}
	return slices.Sorted(maps.Keys(found))
}

// eachImage visits the images of all pod specifications in a value, wherever they are, and puts what the visitor
// returns in their place.
func eachImage(value any, visit func(string) (string, error)) error {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			if err := eachImage(item, visit); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := visitImages(key, v[key], visit); err != nil {
				return err
			}
			if err := eachImage(v[key], visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// visitImages visits the images directly below a field of a pod specification.
func visitImages(field string, value any, visit func(string) (string, error)) error {
	items, ok := value.([]any)
	if !ok {
		return nil
	}
	for _, item := range items {
		entry, _ := item.(map[string]any)
		key := "image"
		switch field {
		case "containers", "initContainers", "ephemeralContainers":
		case "volumes":
			entry, _ = entry["image"].(map[string]any)
			key = "reference"
		default:
			return nil
		}
		reference, ok := entry[key].(string)
		if !ok {
			continue
		}
		to, err := visit(reference)
		if err != nil {
			return err
		}
		entry[key] = to
	}
	return nil
}

// nameOf names an object for people: Kind namespace/name.
func nameOf(object *unstructured.Unstructured) string {
	if object.GetNamespace() == "" {
		return object.GetKind() + " " + object.GetName()
	}
	return object.GetKind() + " " + object.GetNamespace() + "/" + cmp.Or(object.GetName(), "?")
}
