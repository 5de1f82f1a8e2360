package scenario

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBadInputIsRefusedWithPlaceAndFix runs the archives of testdata/bad: files that must not load, and in the file
// `want` every message that they must cause. The paths that are loaded stand in the archive's comment, after "load:".
func TestBadInputIsRefusedWithPlaceAndFix(t *testing.T) {
	archives, err := filepath.Glob("testdata/bad/*.txtar")
	require.NoError(t, err)
	require.NotEmpty(t, archives)
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			require.NoError(t, err)
			fsys := fstest.MapFS{}
			want := ""
			for _, f := range archive.Files {
				if f.Name == "want" {
					want = string(f.Data)
					continue
				}
				fsys[f.Name] = &fstest.MapFile{Data: f.Data}
			}
			paths := []string{"."}
			for line := range strings.Lines(string(archive.Comment)) {
				if list, ok := strings.CutPrefix(line, "load:"); ok {
					paths = strings.Fields(list)
				}
			}
			loaded, err := Load(t.Context(), paths, Options{FS: fsys})
			require.Error(t, err)
			assert.Nil(t, loaded)
			var problems Problems
			if errors.As(err, &problems) {
				for _, p := range problems {
					assert.NotEmpty(t, p.File, p.Error())
					assert.Positive(t, p.Line, p.Error())
					assert.Positive(t, p.Column, p.Error())
					assert.NotEmpty(t, p.Fix, p.Error())
				}
			} else {
				require.ErrorIs(t, err, ErrNothing)
			}
			have := err.Error() + "\n"
			if *update {
				for i := range archive.Files {
					if archive.Files[i].Name == "want" {
						archive.Files[i].Data = []byte(have)
					}
				}
				require.NoError(t, os.WriteFile(name, txtar.Format(archive), 0o644))
				return
			}
			assert.Equal(t, want, have)
		})
	}
}
