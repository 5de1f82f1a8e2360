package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// archive is a file of images.
type archive struct {
	file  string
	names []imageNames
}

// imageNames are the two names of an image: the one that users and manifests know, and one with the key of its content.
type imageNames struct{ known, keyed string }

// load brings the images of an archive into the Docker engine, unless it has them, and makes sure that their known
// names mean them.
func (c cache) load(ctx context.Context, a archive) error {
	for _, names := range a.names {
		if exec.CommandContext(ctx, "docker", "image", "inspect", names.keyed).Run() != nil {
			c.say("docker load %s", a.file)
			if err := runQuietly(ctx, "docker", "load", "--input", a.file); err != nil {
				return err
			}
			break
		}
	}
	for _, names := range a.names {
		if err := runQuietly(ctx, "docker", "tag", names.keyed, names.known); err != nil {
			return err
		}
	}
	return nil
}

// requireDocker says what to do where no Docker engine answers.
func requireDocker(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "docker", "version", "--format", "{{.Server.Version}}").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("docker is missing: run ci/docker.sh start, or make the archives only with --load=false")
	}
	if err != nil {
		return fmt.Errorf("no Docker engine answers: run ci/docker.sh start, or make the archives only with --load=false: %s",
			strings.TrimSpace(string(out)))
	}
	return nil
}
