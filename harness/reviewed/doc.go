// Package reviewed keeps the tables that the specification gives, expected.txt, beside their scenarios, for people to
// review.
package reviewed
