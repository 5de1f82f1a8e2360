//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// configFile finds the file with the process to start among the arguments of runc: the bundle's config.json for create,
// run and restore, the file after --process for exec. It is "" for commands that start nothing, and for an exec that is
// described by arguments.
func configFile(args []string) string {
	command, rest := splitCommand(args)
	switch command {
	case "create", "run", "restore":
		if bundle := optionValue(rest, "--bundle", "-b"); bundle != "" {
			return filepath.Join(bundle, "config.json")
		}
		return "config.json"
	case "exec":
		return optionValue(rest, "--process", "-p")
	}
	return ""
}

// runcFlags are runc's own options, before the command, that take no value.
var runcFlags = []string{"--debug", "--systemd-cgroup", "--help", "-h", "--version", "-v"}

// splitCommand finds the command behind runc's own options, and gives what follows it.
func splitCommand(args []string) (command string, rest []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if !strings.HasPrefix(arg, "-") {
			return arg, args[i+1:]
		}
		if !strings.Contains(arg, "=") && !slices.Contains(runcFlags, arg) {
			i++ // the option's value
		}
	}
	return "", nil
}

// optionValue gives the value of an option, written as two arguments or as one with an equals sign.
func optionValue(args []string, names ...string) string {
	for i, arg := range args {
		for _, name := range names {
			if arg == name && i+1 < len(args) {
				return args[i+1]
			}
			if value, ok := strings.CutPrefix(arg, name+"="); ok {
				return value
			}
		}
	}
	return ""
}

// editFile brings a configuration, of a container or of a process to start in one, within the limits. A file that is
// not there is left to runc to complain about.
func editFile(path string, l limits) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read container configuration: %w", err)
	}
	edited, err := edit(content, l)
	if err != nil {
		return fmt.Errorf("edit container configuration %s: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("edit container configuration: %w", err)
	}
	if err := os.WriteFile(path, edited, info.Mode().Perm()); err != nil {
		return fmt.Errorf("write container configuration: %w", err)
	}
	return nil
}

// edit works on the JSON as a tree, so that fields of newer specifications survive.
func edit(content []byte, l limits) ([]byte, error) {
	var document map[string]any
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber() // a float would spoil large limits
	if err := decoder.Decode(&document); err != nil {
		return nil, err
	}
	process := document // what exec is given is a process by itself
	if inner, ok := document["process"].(map[string]any); ok {
		process = inner
	}
	editCapabilities(process, l)
	editOOMScore(process, l)
	editResources(process, l)
	return json.Marshal(document)
}

func editCapabilities(process map[string]any, l limits) {
	capabilities, ok := process["capabilities"].(map[string]any)
	if !ok {
		return
	}
	young := isPrivileged(capabilities)
	for kind, value := range capabilities {
		list, ok := value.([]any)
		if !ok {
			continue
		}
		list = slices.DeleteFunc(list, func(name any) bool {
			text, ok := name.(string)
			return ok && !l.has(text)
		})
		if young && kind != "ambient" && kind != "inheritable" {
			for _, name := range youngCapabilities {
				if l.has(name) && !slices.Contains(list, any(name)) {
					list = append(list, name)
				}
			}
		}
		capabilities[kind] = list
	}
}

// isPrivileged recognises a container that was given everything by the capabilities that nothing else gets together.
func isPrivileged(capabilities map[string]any) bool {
	bounding, ok := capabilities["bounding"].([]any)
	if !ok {
		return false
	}
	for _, name := range []string{"CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT"} {
		if !slices.Contains(bounding, any(name)) {
			return false
		}
	}
	return true
}

// editOOMScore raises a score that could not be set.
func editOOMScore(process map[string]any, l limits) {
	number, ok := process["oomScoreAdj"].(json.Number)
	if !ok || l.has("CAP_SYS_RESOURCE") {
		return
	}
	if wanted, err := number.Int64(); err == nil && wanted < int64(l.oomScoreAdj) {
		process["oomScoreAdj"] = l.oomScoreAdj
	}
}

// editResources lowers the hard limits that could not be set, as those that Podman gives to every container.
func editResources(process map[string]any, l limits) {
	list, ok := process["rlimits"].([]any)
	if !ok || l.has("CAP_SYS_RESOURCE") {
		return
	}
	for _, item := range list {
		resource, ok := item.(map[string]any)
		if !ok {
			continue
		}
		name, _ := resource["type"].(string)
		have, known := l.hard[name]
		for _, kind := range []string{"hard", "soft"} {
			number, ok := resource[kind].(json.Number)
			if wanted, err := strconv.ParseUint(string(number), 10, 64); known && ok && err == nil && wanted > have {
				resource[kind] = have
			}
		}
	}
}
