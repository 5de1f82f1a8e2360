package policy

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Ref names one object. It can be the key of a map.
type Ref struct {
	Kind schema.GroupVersionKind
	// Namespace is empty for what is in none.
	Namespace, Name string
}

// RefOf names an object that knows its kind.
func RefOf(o interface {
	GroupVersionKind() schema.GroupVersionKind
	GetNamespace() string
	GetName() string
}) Ref {
	return Ref{Kind: o.GroupVersionKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// String is how reports, errors and progress name the object: NetworkPolicy x/deny, or Tier first.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind.Kind + " " + r.Name
	}
	return r.Kind.Kind + " " + r.Namespace + "/" + r.Name
}

// Path is how scenario files name the object: NetworkPolicy/x/deny, or Tier/first.
func (r Ref) Path() string {
	if r.Namespace == "" {
		return r.Kind.Kind + "/" + r.Name
	}
	return r.Kind.Kind + "/" + r.Namespace + "/" + r.Name
}

// Key is the same object whatever version of its API it was written in.
func (r Ref) Key() Ref {
	r.Kind.Version = ""
	return r
}
