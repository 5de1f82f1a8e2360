// Package image assembles the image of probe pods out of an executable: nothing but that one file, so that neither a registry nor a
// container engine is needed to make it, and the same executable always gives the same image.
package image
