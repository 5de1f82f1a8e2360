// Package engine runs the commands of a container engine, Docker or Podman, and recognises why they fail.
//
// Everything goes through the engine's command line, as kind does it, so that whatever context, remote host or
// credentials a user has configured apply here too.
package engine
