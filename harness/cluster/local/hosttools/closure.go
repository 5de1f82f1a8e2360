package hosttools

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// companions are the programs that come with a tool of [For] and are called beside it: Felix chooses among the kinds of
// iptables that there are, and calls those that read and write all rules at once.
var companions = map[string][]string{
	"iptables":  withKinds("iptables"),
	"ip6tables": withKinds("ip6tables"),
}

func withKinds(name string) []string {
	var all []string
	for _, kind := range []string{"", "-legacy", "-nft"} {
		all = append(all, name+kind+"-save", name+kind+"-restore")
	}
	return all
}

// Files lists what has to be copied, with the links that lead there, for a machine that lacks them to run the tools of
// a cluster with the given network plugin: the programs, their program interpreter, the shared libraries that this
// loads for them, and the extensions of iptables. The paths are absolute and sorted. Optional tools that this machine
// lacks are left out; for others there is a [*MissingError].
//
// Which libraries a program needs is asked of its own interpreter, which is run for that as ldd does.
func Files(ctx context.Context, cni string) ([]string, error) {
	if err := Check(cni); err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for _, tool := range For(cni) {
		for _, name := range append([]string{tool.Name}, companions[tool.Name]...) {
			path := Find(name)
			if path == "" {
				continue
			}
			if err := addProgram(ctx, files, path); err != nil {
				return nil, fmt.Errorf("find what %s needs: %w", path, err)
			}
		}
	}
	var paths []string
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths, nil
}

// addProgram adds a program, its interpreter and its libraries, and the extensions that some of these load.
func addProgram(ctx context.Context, files map[string]bool, path string) error {
	if files[path] {
		return nil
	}
	files[path] = true
	interpreter, err := interpreterOf(path)
	if err != nil || interpreter == "" {
		return err
	}
	files[interpreter] = true
	libraries, err := list(ctx, interpreter, path)
	if err != nil {
		return err
	}
	for _, library := range libraries {
		files[library] = true
		if !strings.HasPrefix(filepath.Base(library), "libxtables.so") {
			continue
		}
		if err := addExtensions(ctx, files, interpreter, library); err != nil {
			return err
		}
	}
	return nil
}

// addExtensions adds what libxtables loads by name: the folder xtables beside it, on all distributions that are known
// here. Extensions need libraries of their own.
func addExtensions(ctx context.Context, files map[string]bool, interpreter, library string) error {
	real, err := filepath.EvalSymlinks(library)
	if err != nil {
		return err
	}
	extensions, err := filepath.Glob(filepath.Join(filepath.Dir(real), "xtables", "*.so"))
	if err != nil {
		return err
	}
	if len(extensions) == 0 {
		return fmt.Errorf("there are no extensions of iptables in %s: install iptables from the distribution's package",
			filepath.Join(filepath.Dir(real), "xtables"))
	}
	for _, extension := range extensions {
		if files[extension] {
			continue
		}
		files[extension] = true
		libraries, err := list(ctx, interpreter, extension)
		if err != nil {
			return err
		}
		for _, library := range libraries {
			files[library] = true
		}
	}
	return nil
}

// interpreterOf gives the program interpreter that an executable names, and "" for a static one.
func interpreterOf(path string) (string, error) {
	f, err := elf.Open(path)
	if _, isFormat := errors.AsType[*elf.FormatError](err); isFormat || errors.Is(err, io.EOF) {
		return "", fmt.Errorf("it is a script or another file, not an executable (%w): put the program of the distribution's package first in PATH", err)
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, err := io.ReadAll(p.Open())
			return string(bytes.TrimRight(name, "\x00")), err
		}
	}
	return "", nil
}

// list asks an interpreter for the libraries that it would load. Those of glibc and of musl both answer to --list.
func list(ctx context.Context, interpreter, path string) ([]string, error) {
	cmd := exec.CommandContext(ctx, interpreter, "--list", path)
	// What the caller preloads is not the program's.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "LD_") })
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s --list %s: %w: %s", interpreter, path, err, bytes.TrimSpace(out))
	}
	return parseList(string(out))
}

// parseList reads lines such as
//
//	linux-vdso.so.1 (0x00007ffd9a3f2000)
//	libmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f52fd62e000)
//	/lib64/ld-linux-x86-64.so.2 (0x00007f52fd6f6000)
//	statically linked
func parseList(text string) ([]string, error) {
	var libraries []string
	for line := range strings.Lines(text) {
		name, path, named := strings.Cut(strings.TrimSpace(line), " => ")
		if !named {
			path = name
		}
		if path == "not found" {
			return nil, fmt.Errorf("its library %s is not found: install its package again", name)
		}
		path, _, _ = strings.Cut(path, " (0x")
		if filepath.IsAbs(path) {
			libraries = append(libraries, path)
		}
	}
	return libraries, nil
}
