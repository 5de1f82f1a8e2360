// Package reviewed compares the tables that are computed from the specification with those that were reviewed and kept beside their
// scenarios.
package reviewed
