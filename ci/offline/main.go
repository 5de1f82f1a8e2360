// Command offline makes the images that a kind cluster needs, on a machine that can pull none: out of Go modules and Debian
// packages it builds a node image of kind with the images of Kubernetes in it, and the images of Calico that the vendor's manifest
// names, and loads them into the Docker engine. What was built before is taken from the user's cache.
//
//	ci/docker.sh start
//	go run ./ci/offline
//	kind create cluster --image netproof.dev/kind-node:v1.36.3 --config CONFIG # with networking.disableDefaultCNI
//
// The images are stand-ins, not copies: the programs are those that the projects publish, compiled from their modules, on Debian's
// files instead of the projects' own base images.
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
	print, load, preload bool
	mirror               string
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("offline", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&o.print, "print", false, "print the reference of the node image on standard output, and nothing else")
	flags.BoolVar(&o.load, "load", true, "load the images into the Docker engine; otherwise print the archives' paths")
	flags.BoolVar(&o.preload, "preload-calico", true, "put Calico's images into the node image too: nodes start without loading them")
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
	calico, node, err := c.build(ctx, o)
	if err != nil {
		return err
	}
	if !o.load {
		fmt.Fprintf(stdout, "%s\n%s\n", node.file, calico.file)
		return nil
	}
	for _, a := range []archive{calico, node} {
		if err := c.load(ctx, a); err != nil {
			return err
		}
	}
	if o.print {
		fmt.Fprintln(stdout, node.names[0].keyed)
		return nil
	}
	for _, a := range []archive{node, calico} {
		for _, names := range a.names {
			fmt.Fprintln(stdout, names.known)
		}
	}
	return nil
}

// build makes both archives.
func (c cache) build(ctx context.Context, o options) (calico, node archive, err error) {
	programs, err := buildPrograms(ctx, c.dir)
	if err != nil {
		return archive{}, archive{}, err
	}
	defer func() { err = errors.Join(err, programs.Close()) }()
	dir, err := os.MkdirTemp(c.dir, ".own-")
	if err != nil {
		return archive{}, archive{}, fmt.Errorf("make work folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // what remains is in the way of nobody
	own, err := buildOwn(ctx, dir)
	if err != nil {
		return archive{}, archive{}, err
	}
	kind, err := findKind(ctx)
	if err != nil {
		return archive{}, archive{}, err
	}
	layers, err := c.debianLayers(ctx, o.mirror)
	if err != nil {
		return archive{}, archive{}, err
	}
	m := maker{programs: programs, own: own, debian: layers}
	if calico, err = c.calicoImages(ctx, m); err != nil {
		return archive{}, archive{}, err
	}
	var preloaded []archive
	if o.preload {
		preloaded = append(preloaded, calico)
	}
	node, err = c.nodeImage(ctx, m, kind, preloaded)
	return calico, node, err
}
