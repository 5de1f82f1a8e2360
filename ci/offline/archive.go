package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// timeOfFiles is the time that generated files carry, so that equal contents give equal layers. It is not 0, which some
// programs take for "never".
var timeOfFiles = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)

// layer is a finished layer of an image.
type layer struct {
	// File holds the layer: a tar stream, gzipped or not.
	File string
	// DiffID is the digest of the tar stream, in hexadecimal.
	DiffID string
}

// layerWriter writes a layer file by file. Parent folders are added where they were not written.
type layerWriter struct {
	file    *os.File
	zip     *gzip.Writer // nil for a layer that is not compressed
	tar     *tar.Writer
	sum     hash.Hash
	written map[string]bool
}

// writeLayer makes a layer in a file of that name, with what fill puts into it. A compressed one costs time once and
// saves it with every node, into whose volume it is copied.
func writeLayer(file string, compressed bool, fill func(*layerWriter) error) (layer, error) {
	f, err := os.Create(file)
	if err != nil {
		return layer{}, fmt.Errorf("write layer: %w", err)
	}
	l := &layerWriter{file: f, sum: sha256.New(), written: map[string]bool{}}
	var out io.Writer = f
	if compressed {
		if l.zip, err = gzip.NewWriterLevel(f, gzip.BestSpeed); err != nil {
			return layer{}, errors.Join(fmt.Errorf("write layer: %w", err), f.Close())
		}
		out = l.zip
	}
	l.tar = tar.NewWriter(io.MultiWriter(out, l.sum))
	if err := fill(l); err != nil {
		return layer{}, errors.Join(err, f.Close())
	}
	if err := l.close(); err != nil {
		return layer{}, fmt.Errorf("write layer %s: %w", file, err)
	}
	return layer{File: file, DiffID: hex.EncodeToString(l.sum.Sum(nil))}, nil
}

func (l *layerWriter) close() error {
	err := l.tar.Close()
	if l.zip != nil {
		err = errors.Join(err, l.zip.Close())
	}
	return errors.Join(err, l.file.Close())
}

func (l *layerWriter) header(h *tar.Header) error {
	h.Name = strings.TrimPrefix(h.Name, "/")
	name := strings.TrimSuffix(h.Name, "/")
	if l.written[name] {
		return fmt.Errorf("add %s to layer: it is there already", name) // engines refuse such a layer
	}
	if dir := path.Dir(name); dir != "." && !l.written[dir] {
		if err := l.folder(dir, 0o755); err != nil {
			return err
		}
	}
	l.written[name] = true
	if h.ModTime.IsZero() {
		h.ModTime = timeOfFiles
	}
	h.Format = tar.FormatPAX
	h.ModTime = h.ModTime.Truncate(time.Second)
	if err := l.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("add %s to layer: %w", h.Name, err)
	}
	return nil
}

// folder adds a folder, with mode 0755 if something was put into it before.
func (l *layerWriter) folder(name string, mode int64) error {
	if l.written[name] {
		return nil
	}
	return l.header(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode})
}

// link adds a symbolic link.
func (l *layerWriter) link(name, target string) error {
	return l.header(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
}

// text adds a file with the given content.
func (l *layerWriter) text(name, content string, mode int64) error {
	return l.owned(name, content, mode, 0)
}

// owned is text for a file of another user than root.
func (l *layerWriter) owned(name, content string, mode int64, uid int) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), Uid: uid, Gid: uid}
	if err := l.header(h); err != nil {
		return err
	}
	if _, err := io.WriteString(l.tar, content); err != nil {
		return fmt.Errorf("add %s to layer: %w", name, err)
	}
	return nil
}

// copyFile adds a regular file of the machine under another name and mode.
func (l *layerWriter) copyFile(name, from string, mode int64) error {
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("add %s to layer: %w", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("add %s to layer: %w", name, err)
	}
	if err := l.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: info.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(l.tar, f); err != nil {
		return fmt.Errorf("add %s to layer: %w", name, err)
	}
	return nil
}

// entry adds whatever lies at root/name, a folder without its content, as it is: mode, owner and time included. Sockets
// and devices are passed over: an engine makes those of a container itself.
func (l *layerWriter) entry(root, name, as string) error {
	from := filepath.Join(root, name)
	info, err := os.Lstat(from)
	if err != nil {
		return fmt.Errorf("add %s to layer: %w", as, err)
	}
	target := ""
	switch info.Mode().Type() {
	case fs.ModeSymlink:
		if target, err = os.Readlink(from); err != nil {
			return fmt.Errorf("add %s to layer: %w", as, err)
		}
	case 0, fs.ModeDir:
	default:
		return nil
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return fmt.Errorf("add %s to layer: %w", as, err)
	}
	h.Name, h.Uname, h.Gname = as, "", ""
	if info.IsDir() {
		h.Name += "/"
	}
	if err := l.header(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("add %s to layer: %w", as, err)
	}
	defer f.Close()
	if _, err := io.Copy(l.tar, f); err != nil {
		return fmt.Errorf("add %s to layer: %w", as, err)
	}
	return nil
}

// tree adds everything under root, whose paths begin with prefix in the layer. skip, if given, is asked for each path
// relative to root; of a folder that it refuses nothing is added.
func (l *layerWriter) tree(root, prefix string, skip func(string) bool) error {
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("add %s to layer: %w", root, err)
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return fmt.Errorf("add %s to layer: %w", root, err)
		}
		if skip != nil && skip(name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		as := path.Join(prefix, filepath.ToSlash(name))
		if as == "." {
			return nil
		}
		return l.entry(root, name, as)
	})
}

// image is a container image: its names, what it runs, and its layers, the lowest first.
type image struct {
	names  []string
	config runConfig
	layers []layer
}

// runConfig is the part of an image's configuration that says what it runs, as in the OCI image specification.
type runConfig struct {
	User       string   `json:"User,omitempty"`
	Env        []string `json:"Env,omitempty"`
	Entrypoint []string `json:"Entrypoint,omitempty"`
	Cmd        []string `json:"Cmd,omitempty"`
	WorkingDir string   `json:"WorkingDir,omitempty"`
	StopSignal string   `json:"StopSignal,omitempty"`
}

// defaultPath is the PATH of an image that sets none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// configJSON gives the image's configuration file (OCI image specification, "Image Configuration").
func (i image) configJSON(arch string) ([]byte, error) {
	type history struct {
		Created   time.Time `json:"created"`
		CreatedBy string    `json:"created_by"`
	}
	config := i.config
	if !slices.ContainsFunc(config.Env, func(setting string) bool { return strings.HasPrefix(setting, "PATH=") }) {
		config.Env = append([]string{defaultPath}, config.Env...)
	}
	var diffs []string
	var past []history
	for _, l := range i.layers {
		diffs = append(diffs, "sha256:"+l.DiffID)
		past = append(past, history{timeOfFiles, "netproof ci/offline"})
	}
	return json.Marshal(map[string]any{
		"architecture": arch, "os": "linux", "created": timeOfFiles, "config": config, "history": past,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
}

// writeArchive writes images into one file that `docker load`, `ctr images import` and kind's loader take: the format
// of `docker save`. Layers that images share are in it once.
func writeArchive(file string, images []image) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	out := &layerWriter{file: f, tar: tar.NewWriter(f), written: map[string]bool{}}
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var manifest []entry
	for _, img := range images {
		config, err := img.configJSON(runtime.GOARCH)
		if err != nil {
			return fmt.Errorf("describe image %v: %w", img.names, err)
		}
		sum := sha256.Sum256(config)
		e := entry{Config: hex.EncodeToString(sum[:]) + ".json", RepoTags: img.names}
		for _, l := range img.layers {
			name := l.DiffID + "/layer.tar"
			e.Layers = append(e.Layers, name)
			if out.written[name] {
				continue
			}
			if err := out.copyFile(name, l.File, 0o644); err != nil {
				return err
			}
		}
		if !out.written[e.Config] {
			if err := out.text(e.Config, string(config), 0o644); err != nil {
				return err
			}
		}
		manifest = append(manifest, e)
	}
	content, err := json.Marshal(manifest)
	if err != nil {
		return fmt.Errorf("describe image archive: %w", err)
	}
	if err := out.text("manifest.json", string(content), 0o644); err != nil {
		return err
	}
	if err := out.tar.Close(); err != nil {
		return fmt.Errorf("write image archive %s: %w", file, err)
	}
	return nil
}

// eachFile calls do with each regular file of a tar file.
func eachFile(file string, do func(name string, content []byte) error) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read files: %w", err)
	}
	defer f.Close()
	for files := tar.NewReader(f); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(files)
		if err != nil {
			return fmt.Errorf("read %s of %s: %w", h.Name, file, err)
		}
		if err := do(h.Name, content); err != nil {
			return err
		}
	}
}
