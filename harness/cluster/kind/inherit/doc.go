// Package inherit gives processes that are started open files beyond the three standard ones, and keeps the signals of
// a terminal from them.
//
// A file is known by its number among those that were given, from 0 on. So that a pipe tells when the last process that
// holds its other end has ended, a process may pass a file on to all that it starts in its turn.
package inherit
