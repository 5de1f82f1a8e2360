// Package hosttools knows the programs of the machine that a local cluster calls, and how to install those that are
// missing.
//
// The one thing users get wrong: on Debian these programs lie in /usr/sbin, which an ordinary user's PATH does not
// have. [Find] looks there too, and [SearchPath] makes a PATH under which child processes find them.
package hosttools
