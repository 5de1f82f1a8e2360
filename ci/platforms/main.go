// Command platforms compiles and vets all packages of netproof, their tests among them, for the systems that people
// work on. It stops before machine code: packages are type-checked from source with all that they import, and vetted.
// So a platform takes half a minute on a machine that has never seen it; go vet, which first builds whatever they
// import, takes six minutes of a processor.
//
//	go run ./ci/platforms                   all of them
//	go run ./ci/platforms darwin/arm64 ...  only these
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/analysis/suite/vet"
	"golang.org/x/tools/go/packages"
)

// platforms are the systems, as GOOS/GOARCH.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64"}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run checks the wanted platforms, or all, and gives the code to exit with: 0, 1 when something is wrong on one of
// them or could not be checked, 2 for a platform that there is not.
func run(wanted []string, stdout, stderr io.Writer) (code int) {
	if len(wanted) == 0 {
		wanted = platforms
	}
	for _, platform := range wanted {
		if !slices.Contains(platforms, platform) {
			fmt.Fprintf(stderr, "platforms: no platform %s: there are %s\n", platform, strings.Join(platforms, " "))
			return 2
		}
	}
	for _, platform := range wanted {
		begun := time.Now()
		count, wrong, err := check(platform, ".")
		if err != nil {
			fmt.Fprintf(stderr, "platforms: %s: %v\n", platform, err)
			return 1
		}
		for _, each := range wrong {
			fmt.Fprintln(stderr, each)
		}
		verdict := "ok"
		if len(wrong) > 0 {
			verdict, code = "FAILED", 1
		}
		fmt.Fprintf(stdout, "platforms: %-13s %-6s %4d packages %4.0f s\n", platform, verdict, count, time.Since(begun).Seconds())
	}
	return code
}

// check compiles and vets the packages of the module in folder dir, and their tests, for one platform. It gives the
// number of packages, and what is wrong with them with its position. CGO is off, as in the programs that make build
// builds.
func check(platform, dir string) (count int, wrong []string, err error) {
	goos, goarch, _ := strings.Cut(platform, "/")
	roots, err := packages.Load(&packages.Config{
		Mode:  packages.LoadAllSyntax | packages.NeedModule,
		Dir:   dir,
		Env:   append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0"),
		Tests: true,
	}, "./...")
	if err != nil {
		return 0, nil, err
	}
	packages.Visit(roots, nil, func(p *packages.Package) {
		for _, each := range p.Errors {
			wrong = append(wrong, each.Error())
		}
	})
	if len(wrong) == 0 {
		wrong, err = vetted(roots)
	}
	slices.Sort(wrong)
	return len(roots), slices.Compact(wrong), err // a package and its test share files
}

// vetted gives what go vet says about packages.
func vetted(roots []*packages.Package) (wrong []string, err error) {
	graph, err := checker.Analyze(vet.Suite, roots, nil)
	if err != nil {
		return nil, err
	}
	for _, action := range graph.Roots {
		if action.Err != nil {
			return nil, fmt.Errorf("%s: %w", action, action.Err)
		}
		for _, each := range action.Diagnostics {
			wrong = append(wrong, fmt.Sprintf("%s: %s: %s", action.Package.Fset.Position(each.Pos), action.Analyzer.Name, each.Message))
		}
	}
	return wrong, nil
}
