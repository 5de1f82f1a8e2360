package scenario

import (
	"reflect"
	"slices"
	"strings"

	metavalidation "k8s.io/apimachinery/pkg/util/validation"

	"github.com/netproof/netproof/harness/model"
)

// valueOf gives the addressable structure behind a pointer.
func valueOf(p any) reflect.Value { return reflect.ValueOf(p).Elem() }

func checkPortNumber(c *collector, at Position, n int) bool {
	if n >= 1 && n <= 65535 {
		return true
	}
	c.add(at, "write a number between 1 and 65535", "port %d does not exist", n)
	return false
}

// checkPortName holds a name of a port against the rules of the API server: an IANA service name.
func checkPortName(c *collector, at Position, name string) bool {
	messages := metavalidation.IsValidPortName(name)
	if len(messages) == 0 {
		return true
	}
	c.add(at, "write a name of at most 15 lower case letters, digits and `-`, with a letter among them, or a number", "%q is not a valid name for a port: %s",
		shorten(name), brief(messages))
	return false
}

// checkProtocol returns the protocol, or "" if there is none or it is wrong.
func checkProtocol(c *collector, at Position, protocol string) string {
	if protocol == "" || slices.Contains(protocols, protocol) {
		return protocol
	}
	fix := "write TCP, UDP or SCTP"
	if slices.Contains(protocols, strings.ToUpper(protocol)) {
		fix = "write it in capitals: " + strings.ToUpper(protocol)
	}
	c.add(at, fix, "%q is not a protocol", shorten(protocol))
	return ""
}

// brief is the first sentence of a message of Kubernetes' validation, without its examples and regular expressions.
func brief(messages []string) string {
	text, _, _ := strings.Cut(strings.Join(messages, "; "), " (e.g.")
	return text
}

// reservedLabels begin the labels that netproof puts on what it makes.
const reservedLabels = "netproof.dev/"

// nameLabel is the label that the API server puts on every namespace.
const nameLabel = "kubernetes.io/metadata.name"

// checkLabels holds labels against the rules of the API server. where is the mapping that they were read from; nil
// values are labels to be removed.
func checkLabels(c *collector, where *value, labels map[string]*string) {
	for _, e := range where.entries {
		text, ok := labels[e.key.text]
		if !ok {
			continue
		}
		checkLabelKey(c, e.key.at, e.key.text)
		if text != nil {
			checkLabelValue(c, e.value.at, e.key.text, *text)
		}
	}
}

func checkLabelKey(c *collector, at Position, key string) {
	if messages := metavalidation.IsQualifiedName(key); len(messages) > 0 {
		c.add(at, "write a name such as app or example.com/app", "%q is not a valid name for a label: %s", shorten(key), brief(messages))
	} else if strings.HasPrefix(key, reservedLabels) {
		c.add(at, "choose another prefix", "the label `%s` is netproof's own", key)
	}
}

func checkLabelValue(c *collector, at Position, key, text string) {
	if messages := metavalidation.IsValidLabelValue(text); len(messages) > 0 {
		c.add(at, "write at most 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit",
			"%q is not a valid value for the label `%s`: %s", shorten(text), key, brief(messages))
	}
}

// checkNoOwnLabels refuses labels of netproof's own on a policy: by them a run finds again what it made.
func checkNoOwnLabels(c *collector, where *value) {
	if where == nil || where.kind != mappingValue {
		return
	}
	for _, e := range where.entries {
		if strings.HasPrefix(e.key.text, reservedLabels) {
			c.add(e.key.at, "remove it; notes such as `netproof.dev/owner` are annotations", "the label `%s` is netproof's own", shorten(e.key.text))
		}
	}
}

// withValues turns labels into changes that set them.
func withValues(labels map[string]string) map[string]*string {
	out := make(map[string]*string, len(labels))
	for k, v := range labels {
		out[k] = &v
	}
	return out
}

// clusterNamespaces are those of every cluster that nothing can be put into.
var clusterNamespaces = map[string]bool{"kube-public": true, "kube-node-lease": true}

func checkNamespaceName(c *collector, at Position, name string) bool {
	if messages := metavalidation.IsDNS1123Label(name); len(messages) > 0 {
		c.add(at, "write at most 63 lower case letters, digits and `-`", "%q is not a valid name for a namespace: %s", shorten(name), brief(messages))
		return false
	}
	switch {
	case strings.HasPrefix(name, "netproof-"):
		c.add(at, "choose another name", "the namespace `%s` is netproof's own", name)
		return false
	case clusterNamespaces[name]:
		c.add(at, "choose another name; of the cluster's own namespaces only `default` and `kube-system` can be used",
			"the namespace `%s` belongs to the cluster", name)
		return false
	}
	return true
}

// checkEndpointName splits and checks namespace/name.
func checkEndpointName(c *collector, at Position, what, name string, valid func(string) []string) (namespace string, ok bool) {
	namespace, local, found := strings.Cut(name, "/")
	switch {
	case name == "":
		c.add(at, "add `name: namespace/name`, such as x/a", "the %s has no name", what)
		return "", false
	case !found || strings.Contains(local, "/"):
		c.add(at, "write namespace/name, such as x/a", "%q is not a valid name for a %s", shorten(name), what)
		return "", false
	}
	if messages := metavalidation.IsDNS1123Label(namespace); len(messages) > 0 {
		c.add(at, "write namespace/name in lower case letters, digits and `-`", "%q is not a namespace: %s", shorten(namespace), brief(messages))
		return "", false
	}
	if messages := valid(local); len(messages) > 0 {
		c.add(at, "write lower case letters, digits and `-`", "%q is not a valid name for a %s: %s", shorten(local), what, brief(messages))
		return "", false
	}
	return namespace, true
}

// checkVia checks a way to a destination; none means podIP.
func checkVia(c *collector, at Position, via string) {
	switch model.Via(via) {
	case "", model.ViaPodIP, model.ViaService, model.ViaNodePort:
	default:
		c.add(at, didYouMean(via, []string{"podIP", "service", "nodePort"}), "%q is no way to a destination", shorten(via))
	}
}
