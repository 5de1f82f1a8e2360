package launch

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/harness/cluster/existing"
	"github.com/netproof/netproof/harness/cluster/providers"
	"github.com/netproof/netproof/harness/model"
)

func TestAWrongWishIsToldFromAClusterThatFailed(t *testing.T) {
	for name, w := range map[string]Wanted{
		"a provider that is not there":     {Provider: "cloud"},
		"a kubeconfig that is not there":   {Provider: providers.Existing, Existing: existing.Options{Kubeconfig: filepath.Join(t.TempDir(), "none")}},
		"a kubeconfig without its context": {Provider: providers.Existing, Existing: existing.Options{Kubeconfig: os.DevNull, Context: "none"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _, err := Cluster(t.Context(), w)
			assert.Nil(t, c)
			var wrong *InputError
			require.ErrorAs(t, err, &wrong)
			assert.EqualError(t, wrong.Unwrap(), err.Error())
		})
	}
}

func TestAJournalTellsWhoeverComesAfter(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.json")
	reports := []string{report}
	require.NoError(t, CheckJournal(report))
	none := FindJournals(reports)
	_, found := none.Read(reports)
	assert.Empty(t, found, "no run has begun")

	journals, err := OpenJournals(reports)
	require.NoError(t, err)
	require.Len(t, journals, 1)
	j := journals[0]
	j.RunStarted(model.Run{Cluster: model.Cluster{Name: "lab"}, Scenarios: []model.Scenario{{Name: "first"}, {Name: "second"}}})
	cell := model.Cell{ID: "c", From: "x/a", To: "x/b", Port: 80, Protocol: model.TCP, IPFamily: model.IPv4, Via: model.ViaPodIP,
		Expected: model.Deny, Observed: model.Deny, Result: model.Passed}
	for _, name := range []string{"second", "first"} { // as lanes end them
		j.ScenarioDone(model.Scenario{Name: name, Result: model.Passed, Steps: []model.Step{{Name: "s", Cells: []model.Cell{cell}}}})
	}
	j.Found(model.Finding{Kind: model.Infrastructure, Message: "it died", Result: model.ResultInconclusive})

	run, found := none.Read(reports)
	require.Len(t, found, 1)
	require.NoError(t, found[0].Close())
	assert.False(t, run.Complete, "a journal without an end")
	assert.Equal(t, "lab", run.Cluster.Name)
	require.Len(t, run.Scenarios, 2)
	assert.Equal(t, "first", run.Scenarios[0].Name, "in the order of the files")
	assert.Equal(t, []model.Cell{cell}, run.Scenarios[1].Steps[0].Cells)
	require.Len(t, run.Findings, 1)
	assert.Equal(t, "it died", run.Findings[0].Message)

	_, found = FindJournals(reports).Read(reports)
	assert.Empty(t, found, "what an earlier run left says nothing about this one")

	require.NoError(t, j.Remove())
	_, err = os.Stat(report + ".journal")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestTheOuterProcessIsNotInside(t *testing.T) {
	const marked Inside = "NETPROOF_TEST_LAUNCH"
	t.Setenv(string(marked), "1")
	assert.False(t, marked.Here(), "the variable alone does not make a sandbox")
	deadline, err := marked.Deadline()
	require.NoError(t, err)
	assert.True(t, deadline.IsZero())
}
