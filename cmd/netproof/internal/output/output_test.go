package output_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/cmd/netproof/internal/cli"
	"github.com/netproof/netproof/cmd/netproof/internal/output"
	"github.com/netproof/netproof/harness/model"
)

// parse gives what a command line asks for, as "format>path".
func parse(args string) (string, error) {
	var f output.Flags
	cmd := &cobra.Command{Use: "x"}
	f.Add(cmd)
	if err := cmd.ParseFlags(strings.Fields(args)); err != nil {
		return "", err
	}
	outputs, err := f.Outputs()
	var parts []string
	for _, o := range outputs {
		parts = append(parts, o.Format.Name+">"+o.Path)
	}
	return strings.Join(parts, " "), err
}

func TestFormatsAndFilesPairInOrder(t *testing.T) {
	for args, want := range map[string]string{
		"":                              "table>",
		"--format json":                 "json>",
		"--format json --output r.json": "json>r.json",
		"--output r.json --format json": "json>r.json",
		"--format json --output -":      "json>",
		"--format table --format json --output a --output b":              "table>a json>b",
		"--format table --output a --format json --output b":              "table>a json>b",
		"--output a --output b --format table --format json":              "table>a json>b",
		"--format table --format json --output r.json":                    "table> json>r.json",
		"--format json --output r.json --format table":                    "json>r.json table>",
		"--output r.json --format json --format table":                    "json>r.json table>",
		"--format table --format json --output a --format csv --output b": "table> json>a csv>b",
		"--format table --format json --format csv --output a --output b": "table>b json> csv>a",
		"--format=table --output=- --format=junit --output=j.xml":         "table> junit>j.xml",
		"--output t.txt": "table>t.txt",
		"--format json --output a.json --format json --output b.json":                  "json>a.json json>b.json",
		"--format table --format json --format junit --output - --output a --output b": "table> json>a junit>b",
	} {
		got, err := parse(args)
		require.NoError(t, err, args)
		assert.Equal(t, want, got, args)
	}
}

func TestWhatCannotBePairedIsAUsageError(t *testing.T) {
	for args, want := range map[string]string{
		"--output a --output b":                              "2 times --output needs as many times --format",
		"--format csv --output no/such/r.csv":                "there is no folder no/such",
		"--format table --format json":                       "2 formats have no --output",
		"--format table --output a --output b":               "2 times --output, but only 1 times --format",
		"--format json --output a --format csv --output ./a": "cannot both go to ./a",
		"--format json --output - --format csv":              "cannot both go to standard output",
		"--format jsno":                                      `unknown report format "jsno": there is table, json, junit, markdown, csv (did you mean json?)`,
	} {
		_, err := parse(args)
		assert.ErrorContains(t, err, want, args)
	}
}

func TestOneReportThatCannotBeWrittenDoesNotKeepTheOthersBack(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "no")
	require.NoError(t, os.Mkdir(gone, 0o755))
	var f output.Flags
	cmd := &cobra.Command{Use: "x"}
	f.Add(cmd)
	require.NoError(t, cmd.ParseFlags([]string{
		"--format", "csv", "--output", filepath.Join(dir, "no", "such.csv"),
		"--format", "json", "--output", filepath.Join(dir, "r.json"), "--format", "table", "--output", "-",
	}))
	outputs, err := f.Outputs()
	require.NoError(t, err)
	require.NoError(t, os.Remove(gone), "the folder goes during the run")
	var out bytes.Buffer
	err = output.Write(cli.Streams{Out: &out, Getenv: func(string) string { return "" }}, model.Run{}, outputs, false)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.FileExists(t, filepath.Join(dir, "r.json"))
	assert.Contains(t, out.String(), "no scenario was run")
}
