// Package provider makes providers of clusters out of flags, those that need no sandbox: kind and existing.
package provider
