package run

import "github.com/netproof/netproof/harness/model"

// Observer hears what a run is doing: the progress line and the journal are observers. Its methods are called one at
// a time.
type Observer interface {
	// RunStarted is called once, before anything is touched.
	RunStarted(run model.Run)
	// Note says in plain words what the run is waiting for.
	Note(text string)
	// Detail says what only those want to hear who asked for more.
	Detail(text string)
	ScenarioStarted(name string, index, total int)
	StepStarted(scenario, step string, index, total int)
	// StepDone has the step's cells as judged so far; the final control may still take a denial back.
	StepDone(scenario string, step model.Step)
	ScenarioDone(scenario model.Scenario)
	// Found is called for each finding about the whole run.
	Found(finding model.Finding)
}

// Observers hear it one after the other.
type Observers []Observer

var _ Observer = Observers(nil)

// RunStarted implements [Observer].
func (o Observers) RunStarted(run model.Run) {
	for _, x := range o {
		x.RunStarted(run)
	}
}

// Note implements [Observer].
func (o Observers) Note(text string) {
	for _, x := range o {
		x.Note(text)
	}
}

// Detail implements [Observer].
func (o Observers) Detail(text string) {
	for _, x := range o {
		x.Detail(text)
	}
}

// ScenarioStarted implements [Observer].
func (o Observers) ScenarioStarted(name string, index, total int) {
	for _, x := range o {
		x.ScenarioStarted(name, index, total)
	}
}

// StepStarted implements [Observer].
func (o Observers) StepStarted(scenario, step string, index, total int) {
	for _, x := range o {
		x.StepStarted(scenario, step, index, total)
	}
}

// StepDone implements [Observer].
func (o Observers) StepDone(scenario string, step model.Step) {
	for _, x := range o {
		x.StepDone(scenario, step)
	}
}

// ScenarioDone implements [Observer].
func (o Observers) ScenarioDone(scenario model.Scenario) {
	for _, x := range o {
		x.ScenarioDone(scenario)
	}
}

// Found implements [Observer].
func (o Observers) Found(finding model.Finding) {
	for _, x := range o {
		x.Found(finding)
	}
}
