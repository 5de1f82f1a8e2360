// Package report is the command netproof report: what can be done with saved reports.
package report
