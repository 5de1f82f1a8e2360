package existing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/netproof/netproof/harness/cluster/check"
)

// reviewsAtOnce bounds the questions that are under way at once.
const reviewsAtOnce = 8

// Review asks the API server for each right whether this client has it, with a SelfSubjectAccessReview, which everybody
// may make. There is one check for each grant, in their order.
func Review(ctx context.Context, client kubernetes.Interface, grants []Grant) []check.Check {
	type answer struct {
		grant   int
		access  Access
		allowed bool
		err     error
	}
	var answers []answer
	for i, g := range grants {
		for _, a := range accesses(g) {
			answers = append(answers, answer{grant: i, access: a})
		}
	}
	slots := make(chan struct{}, reviewsAtOnce)
	var asking sync.WaitGroup
	for i := range answers {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			answers[i].allowed, answers[i].err = allowed(ctx, client, answers[i].access)
		})
	}
	asking.Wait()
	checks := make([]check.Check, len(grants))
	for i, g := range grants {
		var lacking, failed []string
		for _, a := range answers {
			switch {
			case a.grant != i:
			case a.err != nil:
				failed = append(failed, a.err.Error())
			case !a.allowed:
				lacking = append(lacking, a.access.String())
			}
		}
		checks[i] = judge(g, lacking, slices.Compact(failed))
	}
	return checks
}

// judge makes a check of the answers about one grant.
func judge(g Grant, lacking, failed []string) check.Check {
	c := check.Check{Name: "right to " + subject(g), State: check.OK, Detail: strings.Join(g.Rule.Verbs, ", ")}
	if len(lacking)+len(failed) == 0 {
		return c
	}
	c.State, c.Detail = check.Missing, "may not "+strings.Join(lacking, ", ")
	if len(lacking) == 0 {
		c.Detail = "cannot be asked for: " + strings.Join(failed, "; ")
	}
	c.Detail += "; needed to " + g.Purpose
	if g.Optional != "" {
		c.State = check.Limited
		c.Detail += "; without it " + g.Optional
	}
	if len(lacking) > 0 {
		c.Fix = "let an administrator apply what netproof rbac prints, and run as that service account or bind its roles to your user"
	}
	return c
}

// subject is what a grant is about, in few words.
func subject(g Grant) string {
	if len(g.Rule.NonResourceURLs) > 0 {
		return "the API itself"
	}
	text := strings.Join(g.Rule.Resources, ", ")
	if len(g.Rule.Resources) > 2 {
		text = g.Rule.Resources[0] + " and others"
	}
	if group := g.Rule.APIGroups[0]; group != "" {
		text += " of " + group
	}
	return text
}

// accesses are the single rights of a grant.
func accesses(g Grant) []Access {
	var out []Access
	for _, verb := range g.Rule.Verbs {
		for _, url := range g.Rule.NonResourceURLs {
			out = append(out, Access{Verb: verb, Path: url})
		}
		for _, group := range g.Rule.APIGroups {
			for _, resource := range g.Rule.Resources {
				name, sub, _ := strings.Cut(resource, "/")
				a := Access{Verb: verb, Group: group, Resource: name, Subresource: sub, Namespace: g.Namespace}
				if len(g.Rule.ResourceNames) > 0 {
					a.Name = g.Rule.ResourceNames[0]
				}
				out = append(out, a)
			}
		}
	}
	return out
}

// allowed asks one question.
func allowed(ctx context.Context, client kubernetes.Interface, a Access) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{}
	if a.Path != "" {
		// A rule's pattern is not a path: what is below it is asked about by one of its paths.
		path := strings.TrimSuffix(a.Path, "*")
		review.Spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Path: path, Verb: a.Verb}
	} else {
		review.Spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
			Verb: a.Verb, Group: a.Group, Resource: a.Resource, Subresource: a.Subresource, Namespace: a.Namespace, Name: a.Name,
		}
	}
	got, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask for the right to %s: %w", a, err)
	}
	return got.Status.Allowed, nil
}

// Access is one thing that somebody does, or may do.
type Access struct {
	Verb string
	// Path is that of what is no resource, such as /version; all else is empty then.
	Path string
	// Group is empty for the core group.
	Group, Resource, Subresource string
	// Namespace and Name are empty for all.
	Namespace, Name string
}

// String writes an access as people ask for it: create pods/exec, list networkpolicies.networking.k8s.io.
func (a Access) String() string {
	if a.Path != "" {
		return a.Verb + " " + a.Path
	}
	text := a.Verb + " " + a.Resource
	if a.Subresource != "" {
		text += "/" + a.Subresource
	}
	if a.Group != "" {
		text += "." + a.Group
	}
	return text
}
