package images

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/progress"
	"github.com/netproof/netproof/harness/cluster/local/engine"
	"github.com/netproof/netproof/harness/cluster/local/hosttools"
	"github.com/netproof/netproof/harness/image"
	"github.com/netproof/netproof/harness/writefile"
)

// writeFull writes the image that proves by itself, and prints its reference. What is wrong with the file, this
// executable or the machine is found before anything is built.
func writeFull(ctx context.Context, streams cli.Streams, file string, quiet bool) (err error) {
	if err := writefile.Check(file); err != nil {
		return cli.Usage("--full: %w", err)
	}
	if runtime.GOOS != "linux" {
		return cli.Usage("--full: the image holds this netproof, which is for %s: write it on a Linux machine", runtime.GOOS)
	}
	self, err := image.Running()
	if err != nil {
		return err
	}
	if _, err := image.Architecture(self); err != nil {
		return cli.Usage("--full: this netproof: %w", err)
	}
	programs, err := programsTree(ctx)
	if err != nil {
		return fmt.Errorf("--full copies programs of this machine: %w", err)
	}
	set, packed, err := engine.Pack(ctx, engine.Options{Progress: progress.Engines(streams, quiet)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	engines, err := enginesTree(packed)
	if err != nil {
		return err
	}
	// What changes most often lies on top.
	img, ref, err := image.Full(ctx, self, engine.CacheEnv, programs, engines)
	if err != nil {
		return err
	}
	return write(ctx, streams, file, img, ref)
}

// programsTree holds the programs of this machine that a local cluster calls.
func programsTree(ctx context.Context) (*image.Tree, error) {
	files, err := hosttools.Files(ctx, engine.Plugins()[0])
	if err != nil {
		return nil, err
	}
	t := &image.Tree{}
	for _, file := range files {
		if err := t.Host(file); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// enginesTree holds a cache with the engines.
func enginesTree(packed []engine.Packed) (*image.Tree, error) {
	t := &image.Tree{}
	for _, p := range packed {
		at := path.Join(image.Cache, p.Path)
		switch {
		case p.Link != "":
			t.Link(at, p.Link)
		case p.Source == "":
			t.Bytes(at, p.Content)
		default:
			if err := t.File(at, p.Source); err != nil {
				return nil, fmt.Errorf("pack engines: %w", err)
			}
		}
	}
	return t, nil
}
