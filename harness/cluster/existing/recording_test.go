package existing

import (
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"
)

// recorder writes down what a program asks of an API server, in the words of RBAC. With it a run can be compared with
// the rights that it is given: see [recorder.Uncovered] and [recorder.Unused].
//
// It sees requests, not what the API server makes of them: an impersonated user, and rights that admission asks for,
// are beyond it.
type recorder struct {
	mu   sync.Mutex
	seen map[Access]int
}

// Wrap makes all clients of a configuration tell the recorder what they ask. It is called before the clients are made.
func (r *recorder) Wrap(cfg *rest.Config) {
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &recording{recorder: r, next: next} })
}

type recording struct {
	recorder *recorder
	next     http.RoundTripper
}

var _ http.RoundTripper = (*recording)(nil)

// RoundTrip implements [http.RoundTripper].
func (t *recording) RoundTrip(request *http.Request) (*http.Response, error) {
	t.recorder.record(request)
	return t.next.RoundTrip(request)
}

// WrappedRoundTripper lets client-go look through to the transport below.
func (t *recording) WrappedRoundTripper() http.RoundTripper { return t.next }

func (r *recorder) record(request *http.Request) {
	a := accessOf(request.Method, request.URL)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = map[Access]int{}
	}
	r.seen[a]++
	// Who applies what is not there needs the right to create it.
	media, _, _ := mime.ParseMediaType(request.Header.Get("Content-Type"))
	if a.Verb == "patch" && strings.HasPrefix(media, "application/apply-patch+") {
		a.Verb = "create"
		r.seen[a]++
	}
}

// Seen are the accesses so far, sorted by their text.
func (r *recorder) Seen() []Access {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Access
	for a := range r.seen {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b Access) int {
		return strings.Compare(a.String()+" "+a.Namespace+"/"+a.Name, b.String()+" "+b.Namespace+"/"+b.Name)
	})
	return out
}

// Uncovered are the accesses that no grant allows, as texts such as "patch pods", sorted. Those that a namespace makes
// a difference for name it.
func (r *recorder) Uncovered(grants []Grant) []string {
	var out []string
	for _, a := range r.Seen() {
		if slices.ContainsFunc(grants, func(g Grant) bool { return g.allows(a) }) {
			continue
		}
		text := a.String()
		if a.Namespace != "" {
			text += " in " + a.Namespace
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Unused are the rights that no access made use of, as texts, sorted. Grants that are implied by others are left out:
// nobody asks for them by name.
func (r *recorder) Unused(grants []Grant) []string {
	seen := r.Seen()
	var out []string
	for _, g := range grants {
		if g.Implied {
			continue
		}
		for _, right := range accesses(g) {
			one := Grant{Namespace: g.Namespace, Rule: g.Rule}
			one.Rule.Verbs = []string{right.Verb}
			if right.Path != "" {
				one.Rule.NonResourceURLs = []string{right.Path}
			} else {
				one.Rule.APIGroups, one.Rule.Resources = []string{right.Group}, []string{strings.TrimSuffix(right.Resource+"/"+right.Subresource, "/")}
			}
			if !slices.ContainsFunc(seen, one.allows) {
				out = append(out, right.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// accessOf reads a request as the API server does:
// https://kubernetes.io/docs/reference/access-authn-authz/authorization/, "Determine the request verb", and the
// resource paths of https://kubernetes.io/docs/reference/using-api/api-concepts/.
func accessOf(method string, u *url.URL) Access {
	path := strings.TrimSuffix(u.Path, "/")
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	var a Access
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		a.Group, parts = parts[1], parts[3:]
	default:
		return Access{Verb: strings.ToLower(method), Path: u.Path}
	}
	if parts[0] == "namespaces" && len(parts) > 2 && !slices.Contains(namespaceSubresources, parts[2]) {
		a.Namespace, parts = parts[1], parts[2:]
	} else if parts[0] == "namespaces" && len(parts) > 1 {
		a.Namespace = parts[1] // a namespace is in itself
	}
	a.Resource = parts[0]
	if len(parts) > 1 {
		a.Name = parts[1]
	}
	if len(parts) > 2 {
		a.Subresource = parts[2]
	}
	a.Verb = verbOf(method, a, u.Query())
	return a
}

// namespaceSubresources are the parts of a path that belong to a namespace itself.
var namespaceSubresources = []string{"status", "finalize"}

func verbOf(method string, a Access, query url.Values) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if a.Name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	if watch := query.Get("watch"); watch == "true" || watch == "1" {
		return "watch"
	}
	if a.Name == "" {
		return "list"
	}
	return "get"
}

// allows tells whether a grant allows an access.
func (g Grant) allows(a Access) bool {
	return matches(g.Rule.Verbs, a.Verb) && (a.Path != "" && allowsPath(g.Rule, a.Path) || a.Path == "" && g.allowsResource(a))
}

func allowsPath(r rbacv1.PolicyRule, path string) bool {
	return slices.ContainsFunc(r.NonResourceURLs, func(url string) bool {
		prefix, pattern := strings.CutSuffix(url, "*")
		return url == path || pattern && strings.HasPrefix(path, prefix)
	})
}

func (g Grant) allowsResource(a Access) bool {
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	return matches(g.Rule.APIGroups, a.Group) && matches(g.Rule.Resources, resource) &&
		(g.Namespace == "" || g.Namespace == a.Namespace) &&
		(len(g.Rule.ResourceNames) == 0 || slices.Contains(g.Rule.ResourceNames, a.Name))
}

func matches(list []string, word string) bool {
	return slices.Contains(list, word) || slices.Contains(list, "*")
}
