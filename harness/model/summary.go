package model

// Summarize computes the results of all scenarios and the summary of the run from its cells, controls and findings.
//
// Of the summary, Signal, TimedOut and DurationMs are facts that only the caller knows: they are taken as they are. A
// finding of kind [Cleanup] sets CleanupFailed and changes no result: what was proven before it stays proven. A
// scenario that the caller marked [Interrupted] stays so unless something in it was proven wrong.
//
// Where several results are possible the gravest is taken: failed, interrupted, inconclusive, vacuous, passed.
// Unsupported cells do not count against a scenario; one in which there is nothing else is unsupported itself, and a
// run of nothing but such is vacuous.
func Summarize(run *Run) {
	sum := Summary{
		Scenarios:     len(run.Scenarios),
		Signal:        run.Summary.Signal,
		TimedOut:      run.Summary.TimedOut,
		CleanupFailed: run.Summary.CleanupFailed || hasCleanup(run.Findings),
		DurationMs:    run.Summary.DurationMs,
	}
	results := map[Result]int{}
	for i := range run.Scenarios {
		s := &run.Scenarios[i]
		sum.CleanupFailed = sum.CleanupFailed || hasCleanup(s.Findings)
		for _, step := range s.Steps {
			for _, cell := range step.Cells {
				sum.count(cell.Result)
			}
		}
		s.Result = s.summarize()
		results[s.Result]++
	}
	countFindings(run.Findings, results)
	switch {
	case results[Failed] > 0:
		sum.Result = Failed
	case sum.Signal != 0 || sum.TimedOut || results[Interrupted] > 0:
		sum.Result = Interrupted
	case results[ResultInconclusive] > 0 || !run.Complete:
		sum.Result = ResultInconclusive
	case results[Vacuous] > 0 || results[Passed] == 0:
		sum.Result = Vacuous
	default:
		sum.Result = Passed
	}
	run.Summary = sum
}

// count adds one cell. A result that no cell can have proves nothing.
func (s *Summary) count(r Result) {
	s.Cells++
	switch r {
	case Passed:
		s.Passed++
	case Failed:
		s.Failed++
	case Flaky:
		s.Flaky++
	case ResultUnsupported:
		s.Unsupported++
	case Recorded:
		s.Recorded++
	default:
		s.Inconclusive++
	}
}

func (s *Scenario) summarize() Result {
	var cells Summary
	results := map[Result]int{}
	countFindings(s.Findings, results)
	for _, step := range s.Steps {
		for _, cell := range step.Cells {
			cells.count(cell.Result)
			// Without controls a denial is only a connection that failed.
			if !step.Controls.Held && cell.Result == Passed && cell.Observed == Deny {
				results[ResultInconclusive]++
			}
		}
	}
	switch {
	case cells.Failed+results[Failed] > 0:
		return Failed
	case s.Result == Interrupted:
		return Interrupted
	case cells.Inconclusive+cells.Flaky+results[ResultInconclusive] > 0:
		return ResultInconclusive
	case results[Vacuous] > 0 || cells.Passed+cells.Unsupported == 0:
		return Vacuous
	case cells.Passed == 0:
		return ResultUnsupported
	default:
		return Passed
	}
}

func countFindings(findings []Finding, into map[Result]int) {
	for _, f := range findings {
		if f.Kind == Cleanup {
			continue
		}
		switch f.Result {
		case Failed, Vacuous:
			into[f.Result]++
		default:
			into[ResultInconclusive]++
		}
	}
}

func hasCleanup(findings []Finding) bool {
	for _, f := range findings {
		if f.Kind == Cleanup {
			return true
		}
	}
	return false
}

// The exit codes of the program. A run that a signal ended leaves with 128 plus the number of the signal.
const (
	ExitOK            = 0
	ExitMismatch      = 1
	ExitUsage         = 2
	ExitInconclusive  = 3
	ExitTimeout       = 4
	ExitVacuous       = 5
	ExitCleanupFailed = 6
	ExitSignal        = 128
)

// ExitCode chooses the exit code of a summarized run.
//
// A signal outranks all else: whoever sent it wants to know that it was the cause. A conclusive mismatch comes next,
// since nothing that happened afterwards can undo it. A run without a result that is known, or without an end, is never
// green.
func ExitCode(run Run) int {
	sum := run.Summary
	switch {
	case sum.Signal != 0:
		return ExitSignal + sum.Signal
	case sum.Result == Failed:
		return ExitMismatch
	case sum.TimedOut:
		return ExitTimeout
	case sum.Result == Vacuous:
		return ExitVacuous
	case sum.Result != Passed || !run.Complete:
		return ExitInconclusive
	case sum.CleanupFailed:
		return ExitCleanupFailed
	default:
		return ExitOK
	}
}
