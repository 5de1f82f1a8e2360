// Package report renders a [model.Run]: for people as a table, for programs as JSON and other formats.
//
// Every format is a pure function from the run to a writer: the same run and options give the same bytes, whatever the
// machine, the terminal or the hour. Only file.go touches the disk. Formats are found by name with [Lookup].
//
// A [Journal] is the report in the making: one line per record, written as soon as something is known, from which
// [ReadJournal] rebuilds the run, also when its end was never written.
package report
