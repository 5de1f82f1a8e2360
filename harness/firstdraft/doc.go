// Package firstdraft writes a first netproof.yaml for a folder of manifests, from what its policies do now.
package firstdraft
