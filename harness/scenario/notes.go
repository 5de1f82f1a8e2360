package scenario

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/harness/policy"
)

// The annotations by which a policy says who looks after it. Each is also read without the prefix, and the review date
// as review-date too.
const (
	// OwnerAnnotation names the people that answer for the policy.
	OwnerAnnotation = "netproof.dev/owner"
	// PurposeAnnotation says in a sentence what the policy is for.
	PurposeAnnotation = "netproof.dev/purpose"
	// ReviewAnnotation is the day, as 2027-06-30, by which somebody should look at the policy again.
	ReviewAnnotation = "netproof.dev/review-by"
)

// Notes is what a policy says about itself. Source is left empty.
func Notes(object metav1.Object) model.PolicyNote {
	a := object.GetAnnotations()
	ref := policy.Ref{Kind: policy.NetworkPolicy, Namespace: object.GetNamespace(), Name: object.GetName()}
	if k, ok := object.(interface{ GetKind() string }); ok && k.GetKind() != "" {
		ref.Kind.Kind = k.GetKind()
	}
	return model.PolicyNote{
		Policy:  ref.String(),
		Owner:   cmp.Or(a[OwnerAnnotation], a["owner"]),
		Purpose: cmp.Or(a[PurposeAnnotation], a["purpose"]),
		Review:  cmp.Or(a[ReviewAnnotation], a["netproof.dev/review-date"], a["review-by"], a["review-date"]),
	}
}
