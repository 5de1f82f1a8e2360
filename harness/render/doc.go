// Package render makes manifests of what is not one yet: kustomizations and Helm charts, by the libraries of these
// tools. What it renders may come from a stranger: files are read through package readfile, nothing is fetched, and
// nothing is executed but templates.
package render
