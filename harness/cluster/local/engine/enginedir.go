package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/netproof/netproof/harness/owned"
)

// MissingError says what a folder of prebuilt engines lacks.
type MissingError struct {
	Dir string
	// Files are the names that were looked for and not found, each with the reason in the same place of Reasons.
	Files   []string
	Reasons []string
}

func (e *MissingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "engine folder %s is not complete:", e.Dir)
	for i, file := range e.Files {
		fmt.Fprintf(&b, "\n  %s: %s", file, e.Reasons[i])
	}
	b.WriteString("\nEach file may lie in the folder itself or in a folder of its engine's name below it.")
	return b.String()
}

// CheckDir tells whether programs may be taken from a folder: it is there, and nobody else can change what is in it.
// Otherwise the error is an [*UntrustedError], or says what is wrong with the path.
func CheckDir(dir string) error {
	_, err := resolveDir(dir)
	return err
}

// resolveDir is the path of a folder that is ours alone, without links.
func resolveDir(dir string) (string, error) {
	real, err := owned.Resolve(dir)
	if err != nil {
		return "", untrustedDir(dir, err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a folder", real)
	}
	return real, nil
}

// fromDir takes prebuilt engines from dir: every program as DIR/<program> or DIR/<engine>/<program>.
func fromDir(ctx context.Context, wanted []spec, dir string) (*Engines, error) {
	abs, err := resolveDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open engine folder: %w", err)
	}
	set, missing := newSet(), &MissingError{Dir: abs}
	for _, s := range wanted {
		set.dirs[s.name] = abs
		for _, file := range s.fileNames() {
			path, reason := lookInDir(s, abs, file)
			if reason != "" {
				missing.Files = append(missing.Files, file)
				missing.Reasons = append(missing.Reasons, reason+" (engine "+s.name+" "+s.version+")")
				continue
			}
			if _, err := owned.Resolve(path); err != nil {
				return nil, fmt.Errorf("open engine folder: %w", untrustedDir(dir, err))
			}
			set.paths[file] = path
			if filepath.Dir(path) != abs {
				set.dirs[s.name] = filepath.Dir(path)
			}
		}
	}
	if len(missing.Files) > 0 {
		return nil, missing
	}
	if err := set.askVersions(ctx, wanted); err != nil {
		return nil, err
	}
	return set, nil
}

// lookInDir finds a file of an engine, or says why it will not do.
func lookInDir(s spec, dir, file string) (path, reason string) {
	for _, path := range []string{filepath.Join(dir, file), filepath.Join(dir, s.name, file)} {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && info.IsDir():
			continue // an engine's folder may have the name of a program of it
		case err != nil:
			return "", err.Error()
		case !info.Mode().IsRegular():
			return "", "not a regular file"
		case s.isExecutable(file) && info.Mode()&0o111 == 0:
			return "", "not executable (chmod +x " + path + ")"
		}
		return path, ""
	}
	return "", "not there"
}

// versionTimeout bounds how long a program may take to say its version.
const versionTimeout = 20 * time.Second

var versionPattern = regexp.MustCompile(`\bv?\d+\.\d+\.\d+[-+.0-9A-Za-z]*`)

// askVersions asks one program of each engine for its version: a prebuilt one need not be what netproof pins, and
// reports should name what really ran. A program of another platform is found out here too.
func (e *Engines) askVersions(ctx context.Context, wanted []spec) error {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	versions, errs := make([]string, len(wanted)), make([]error, len(wanted))
	var wg sync.WaitGroup
	for i, s := range wanted {
		wg.Go(func() { versions[i], errs[i] = askVersion(ctx, e.paths[s.programs[0].file], s.programs[0].versionArgs) })
	}
	wg.Wait()
	for i, s := range wanted {
		e.versions[s.name] = versions[i]
	}
	return errors.Join(errs...)
}

func askVersion(ctx context.Context, path string, args []string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "CNI_") { // with CNI_COMMAND set, a CNI plugin would act
			cmd.Env = append(cmd.Env, setting)
		}
	}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("run prebuilt %s to learn its version: %w: %s", path, err, bytes.TrimSpace(out))
	}
	version := string(versionPattern.Find(out))
	if version == "" {
		return "unknown", nil
	}
	return "v" + strings.TrimPrefix(version, "v"), nil
}
