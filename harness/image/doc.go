// Package image assembles images, so that neither a registry nor a container engine is needed to make them, and the
// same files always give the same image. [Agent] is the image of probe pods: nothing but the executable. [Full] is one
// that proves by itself, with engines and the programs of the machine that a local cluster calls.
package image
