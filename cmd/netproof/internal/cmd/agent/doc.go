// Package agent is the command netproof agent, which probe pods run.
package agent
