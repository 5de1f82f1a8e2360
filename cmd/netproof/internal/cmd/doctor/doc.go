// Package doctor is the command netproof doctor.
package doctor
