package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stop is a link to a source file with the name of a declaration behind it.
var stop = regexp.MustCompile("\\]\\(\\.\\./([\\w/.-]+\\.go)\\) `([\\w.]+)`")

func TestEveryStopOfACellIsWhereThePageSays(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/life-of-a-cell.md"))
	require.NoError(t, err)
	stops := stop.FindAllStringSubmatch(string(page), -1)
	require.Greater(t, len(stops), 30)
	for _, s := range stops {
		assert.Contains(t, declared(t, filepath.Join(root, s[1])), s[2], s[1])
	}
}

// declared are the names that a file declares: functions, types, and methods as Type.Method.
func declared(t *testing.T, path string) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	require.NoError(t, err)
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				of := d.Recv.List[0].Type
				if pointer, ok := of.(*ast.StarExpr); ok {
					of = pointer.X
				}
				if id, ok := of.(*ast.Ident); ok {
					name = id.Name + "." + name
				}
			}
			names = append(names, name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if typ, ok := s.(*ast.TypeSpec); ok {
					names = append(names, typ.Name.Name)
				}
			}
		}
	}
	return names
}
