package launch

import (
	"context"
	"errors"
	"fmt"

	"github.com/netproof/netproof/harness/cluster"
	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/kind"
	"github.com/netproof/netproof/harness/cluster/providers"
)

// Wanted says which cluster a run wants.
type Wanted struct {
	// Provider is one of package providers.
	Provider string
	// Cluster is how it should be. Its Name is that of a kind cluster to use, or to make.
	Cluster cluster.Options
	// Attach uses the kind cluster of that name, which must be there.
	Attach bool
	// EngineDir is a folder of prebuilt engines for a local cluster, "" for those of the cache. They were verified when
	// this machine was prepared.
	EngineDir string
	// Kind is how clusters of kind are made. One whose Keep is set stays when it is closed.
	Kind kind.Options
	// Existing is how the existing cluster is reached. AnyFamily and AnyNodes take its IP families and nodes as they
	// are.
	Existing            existing.Options
	AnyFamily, AnyNodes bool
}

// InputError says that something else should have been asked for: the cluster itself is not to blame.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }
func (e *InputError) Unwrap() error { return e.Err }

// Cluster gives the cluster that is wanted. disposable tells whether it ends with the run. For a local one the caller
// is in a sandbox.
func Cluster(ctx context.Context, w Wanted) (c cluster.Cluster, disposable bool, err error) {
	switch w.Provider {
	case providers.Local:
		c, err := makeLocal(ctx, w.Cluster, w.EngineDir)
		return c, true, err
	case providers.Kind:
		p, err := kind.New(w.Kind)
		if err != nil {
			return nil, false, &InputError{Err: err}
		}
		if !w.Attach {
			c, err := p.Create(ctx, w.Cluster)
			return c, !w.Kind.Keep, err
		}
		c, err := p.Attach(ctx, w.Cluster.Name)
		if errors.Is(err, kind.ErrNotFound) {
			err = &InputError{Err: err}
		}
		if err != nil {
			return nil, false, err
		}
		return c, false, nil
	case providers.Existing:
		if _, _, err := existing.RESTConfig(w.Existing); err != nil {
			return nil, false, &InputError{Err: err}
		}
		opts := w.Cluster
		opts.CNI = "" // it is what it is
		if w.AnyFamily {
			opts.IPFamilies = nil
		}
		if w.AnyNodes {
			opts.Nodes = 0
		}
		c, err := existing.New(w.Existing).Create(ctx, opts)
		if errors.Is(err, existing.ErrNoImage) {
			err = &InputError{Err: err}
		}
		return c, false, err
	}
	return nil, false, &InputError{Err: fmt.Errorf("there is no provider %q", w.Provider)}
}
