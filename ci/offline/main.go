// Command offline makes the images that a kind cluster needs, on a machine that can pull none: out of Go modules and
// Debian packages it builds a node image of kind with the images of Kubernetes in it, and the images of Calico that the
// vendor's manifest names, with --cilium also those that Cilium's chart names, and loads them into the Docker engine.
// What was built before is taken from the user's cache.
//
//	ci/docker.sh start
//	go run ./ci/offline
//	kind create cluster --image netproof.dev/kind-node:v1.36.3 --config CONFIG # with networking.disableDefaultCNI
//
// The images are stand-ins, not copies: the programs are those that the projects publish, compiled from their modules,
// on Debian's files instead of the projects' own base images.
//
// The first build takes as long as compiling Kubernetes does; the root file system needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "offline:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	print, load, preload, cilium bool
	mirror                       string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("offline", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.print, "print", false, "print the reference of the node image on standard output, and nothing else")
	flags.BoolVar(&o.load, "load", true, "load the images into the Docker engine; otherwise print the archives' paths")
	flags.BoolVar(&o.preload, "preload-calico", true, "put Calico's images into the node image too: nodes start without loading them")
	flags.BoolVar(&o.cilium, "cilium", false, "make Cilium's images too, which takes longer than Calico's, and say where its chart is")
	flags.StringVar(&o.mirror, "mirror", "", "Debian mirror for debootstrap, instead of its default")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, stderr)
	if err != nil {
		return err
	}
	if o.load {
		if err := requireDocker(ctx); err != nil { // before the long part
			return err
		}
	}
	c, err := openCache(stderr)
	if err != nil {
		return err
	}
	archives, err := c.build(ctx, o)
	if err != nil {
		return err
	}
	for _, a := range archives {
		if o.load {
			if err := c.load(ctx, a); err != nil {
				return err
			}
		} else {
			fmt.Fprintln(stdout, a.file)
		}
	}
	switch {
	case !o.load:
	case o.print:
		fmt.Fprintln(stdout, archives[0].names[0].keyed)
	default:
		for _, a := range archives {
			for _, names := range a.names {
				fmt.Fprintln(stdout, names.known)
			}
		}
	}
	return nil
}

// build makes the archives of the node image, of Calico's images and, if they are wanted, of Cilium's.
func (c cache) build(ctx context.Context, o options) (archives []archive, err error) {
	programs, err := buildPrograms(ctx, c.dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, programs.Close()) }()
	dir, err := os.MkdirTemp(c.dir, ".own-")
	if err != nil {
		return nil, fmt.Errorf("make work folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what remains is in the way of nobody
	own, err := buildOwn(ctx, dir)
	if err != nil {
		return nil, err
	}
	kind, err := findKind(ctx)
	if err != nil {
		return nil, err
	}
	layers, err := c.debianLayers(ctx, o.mirror)
	if err != nil {
		return nil, err
	}
	m := maker{programs: programs, own: own, debian: layers}
	calico, err := c.calicoImages(ctx, m)
	if err != nil {
		return nil, err
	}
	var preloaded []archive
	if o.preload {
		preloaded = append(preloaded, calico)
	}
	node, err := c.nodeImage(ctx, m, kind, preloaded)
	if err != nil {
		return nil, err
	}
	archives = []archive{node, calico}
	if o.cilium {
		cilium, err := c.ciliumImages(ctx, m, o.mirror)
		if err != nil {
			return nil, err
		}
		c.say("Cilium's chart: %s", filepath.Join(filepath.Dir(cilium.file), ciliumChart))
		archives = append(archives, cilium)
	}
	return archives, nil
}
