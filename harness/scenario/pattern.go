package scenario

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/netproof/netproof/harness/model"
)

// pattern selects endpoints.
type pattern struct {
	text string
	kind patternKind
	// namespace and name may hold `*`.
	namespace, name string
	selector        labels.Selector
	node            int
	address         netip.Addr
}

type patternKind int

const (
	noPattern patternKind = iota
	// everyPattern is "*": every pod, or every service where services are meant.
	everyPattern
	// podPattern is namespace/name, of pods or services.
	podPattern
	labelPattern
	nodePattern
	hostPattern
	// addressPattern is the host that has an address.
	addressPattern
	// subjectPattern is for probes that nobody writes: see [pattern.matchesSubject].
	subjectPattern
)

const patternFix = "write *, x/*, */a, x/a, label:app=web, node:0, host:NAME or an address"

// parsePattern reads a pattern. It returns the zero pattern, which selects nothing, when it reports a problem.
func parsePattern(c *collector, at Position, text string) pattern {
	p := pattern{text: text}
	prefix, rest, hasPrefix := strings.Cut(text, ":")
	switch {
	case text == "":
		c.add(at, patternFix, "a pattern is missing")
		return pattern{}
	case text == "*":
		p.kind = everyPattern
		return p
	case isAddress(text):
		p.kind, p.address = addressPattern, netip.MustParseAddr(text)
		if why := unplayable(p.address); why != "" {
			c.add(at, "write the address of a host", "no host can be at %s: %s", p.address, why)
			return pattern{}
		}
		return p
	case hasPrefix && prefix == "label":
		selector, err := labels.Parse(rest)
		if err != nil || selector.Empty() {
			c.add(at, "write label:app=web, or another label selector", "%q is not a label selector", shorten(rest))
			return pattern{}
		}
		p.kind, p.selector = labelPattern, selector
		return p
	case hasPrefix && prefix == "node":
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 || n > maxNodeIndex || rest != strconv.Itoa(n) {
			c.add(at, "write node:0, node:1, ...", "%q is not a node: nodes are counted from 0", shorten(text))
			return pattern{}
		}
		p.kind, p.node = nodePattern, n
		return p
	case hasPrefix && prefix == "host":
		if rest == "" {
			c.add(at, "write host:NAME, with a name of topology.hosts", "the host has no name")
			return pattern{}
		}
		p.kind, p.name = hostPattern, rest
		return p
	case hasPrefix:
		c.add(at, patternFix, "%q is not a pattern", shorten(text))
		return pattern{}
	}
	namespace, name, slash := strings.Cut(text, "/")
	if !slash || namespace == "" || name == "" || strings.ContainsAny(text, "[]?\\ ") || strings.Contains(name, "/") {
		c.add(at, patternFix, "%q is not a pattern", shorten(text))
		return pattern{}
	}
	p.kind, p.namespace, p.name = podPattern, namespace, name
	return p
}

// maxNodeIndex bounds node indices to what a test cluster can have.
const maxNodeIndex = 999

// IsPattern tells whether a text may stand for several endpoints: "*", x/*, label:app=web.
func IsPattern(text string) bool {
	return strings.Contains(text, "*") || strings.HasPrefix(text, "label:")
}

// Matching lists the endpoints of a topology that a text stands for: a pattern as in rules, or the name of an endpoint;
// an address stands for the host that has it. Services are among them where they may be meant.
func Matching(t *model.Topology, text string, services bool) (out []model.Endpoint, err error) {
	var c collector
	p := parsePattern(&c, Position{}, text)
	if len(c.problems) > 0 {
		return nil, fmt.Errorf("%s: %s", c.problems[0].Message, c.problems[0].Fix)
	}
	for i := range t.Pods {
		if p.matchesPod(&t.Pods[i]) {
			out = append(out, t.Pods[i].Endpoint())
		}
	}
	for i := range t.Services {
		if s := &t.Services[i]; services && (p.kind == everyPattern || p.kind == podPattern && p.matchesName(s.Namespace, s.Name)) && !slices.Contains(out, s.Endpoint()) {
			out = append(out, s.Endpoint())
		}
	}
	for i := range t.Nodes {
		if p.matchesNode(i) {
			out = append(out, model.NodeEndpoint(i))
		}
	}
	for i := range t.Hosts {
		if p.matchesHost(&t.Hosts[i]) {
			out = append(out, t.Hosts[i].Endpoint())
		}
	}
	return out, nil
}

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// exact tells whether the pattern names one pod or workload, one node or one host.
func (p pattern) exact() bool {
	switch p.kind {
	case nodePattern, addressPattern:
		return true
	case hostPattern:
		return !strings.Contains(p.name, "*")
	case podPattern:
		return !strings.Contains(p.namespace, "*") && !strings.Contains(p.name, "*")
	}
	return false
}

func (p pattern) matchesName(namespace, name string) bool {
	return glob(p.namespace, namespace) && glob(p.name, name)
}

func (p pattern) matchesPod(pod *model.Pod) bool {
	switch p.kind {
	case everyPattern:
		return true
	case podPattern:
		return p.matchesName(pod.Namespace, pod.Name) || pod.Workload != "" && p.matchesName(pod.Namespace, pod.Workload)
	case labelPattern:
		return p.selector.Matches(labels.Set(pod.Labels))
	case subjectPattern:
		return p.matchesSubject(pod)
	}
	return false
}

// names tells whether the pattern is the pod's own name, and not that of its workload or of others as well.
func (p pattern) names(pod *model.Pod) bool {
	return p.kind == podPattern && p.exact() && p.namespace == pod.Namespace && p.name == pod.Name
}

func (p pattern) matchesHost(h *model.Host) bool {
	return p.kind == hostPattern && glob(p.name, h.Name) || p.kind == addressPattern && slices.Contains(h.Addresses, p.address)
}

func (p pattern) matchesNode(index int) bool { return p.kind == nodePattern && p.node == index }

// matchesService tells whether the pattern selects a service by its name, or by one of the pods behind it.
func (p pattern) matchesService(s *model.Service, t *model.Topology) bool {
	var behind []int
	if p.kind == podPattern && !p.matchesName(s.Namespace, s.Name) || p.kind == labelPattern {
		for i := range t.Pods {
			if s.Selects(&t.Pods[i]) {
				behind = append(behind, i)
			}
		}
	}
	return p.matchesServiceOf(s, t.Pods, behind)
}

// matchesServiceOf is the same where it is known which pods are behind the service.
func (p pattern) matchesServiceOf(s *model.Service, pods []model.Pod, behind []int) bool {
	switch p.kind {
	case everyPattern:
		return true
	case podPattern, labelPattern:
		return p.kind == podPattern && p.matchesName(s.Namespace, s.Name) ||
			slices.ContainsFunc(behind, func(i int) bool { return p.matchesPod(&pods[i]) })
	}
	return false
}

// backends are the pods behind a service.
func backends(s *model.Service, t *model.Topology) (out []*model.Pod) {
	for i := range t.Pods {
		if p := &t.Pods[i]; s.Selects(p) {
			out = append(out, p)
		}
	}
	return out
}

// glob matches `*` against any part of a name. Other signs stand for themselves: parsePattern lets no other wildcard
// in.
func glob(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// unmatched says what a pattern without a match asks for: "no pod x/a", "no endpoint label:app=web".
func (p pattern) unmatched(services bool) string {
	what := "no pod"
	switch {
	case p.kind == hostPattern:
		return fmt.Sprintf("there is no host `%s`", p.name)
	case p.kind == addressPattern:
		return fmt.Sprintf("there is no host with the address %s", p.address)
	case p.kind == nodePattern:
		return fmt.Sprintf("there is no node %d", p.node)
	case p.kind == podPattern && p.exact():
		if services {
			what = "neither a service nor a pod"
		}
		return fmt.Sprintf("there is %s `%s`", what, p.text)
	case services:
		what = "no service"
	}
	return fmt.Sprintf("`%s` matches %s", p.text, what)
}
