package engine

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/netproof/netproof/harness/meminfo"
)

// buildFlags are the flags that decide about the result. Engines carry no debugging information: netproof runs them,
// nobody steps through them, and it is a tenth of the compiler's work and a third of the size.
func buildFlags(s spec) []string {
	ldflags := strings.Join(append([]string{"-s", "-w"}, s.ldflags...), " ")
	flags := []string{"-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", "-ldflags=" + ldflags}
	if len(s.tags) > 0 {
		// Only then: the flags enter the key, and engines without tags are not to be built again.
		flags = append(flags, "-tags="+strings.Join(s.tags, ","))
	}
	return flags
}

// parallelBuilds is how many engines may compile at once. One go command leaves processors idle while it links; a
// second one fills them, where there is memory for it: two at once were seen to take 1.6 GiB.
func parallelBuilds() int {
	const enough = 4 << 30
	if left := meminfo.Available(); left > 0 && left < enough {
		return 1
	}
	return 2
}

// lockPoll is how often a waiting build looks whether its turn has come: flock itself cannot be interrupted.
const lockPoll = 100 * time.Millisecond

// ensureOne makes one engine complete and gives its folder with a shared lock on it. It waits for mine before it
// downloads, and calls pass as soon as the next engine may.
func (b *builder) ensureOne(ctx context.Context, s spec, mine <-chan struct{}, pass func()) (string, *lock, error) {
	dir, err := b.cache.engineDir(s, b.toolchain)
	if err != nil {
		return "", nil, err
	}
	j := &job{builder: b, spec: s, dir: dir, tmp: buildingDir(dir), begun: time.Now()}
	if !isComplete(s, dir) {
		imported, held, err := j.imported()
		if err != nil {
			return "", nil, err
		}
		if imported != "" {
			pass()
			j.report(Event{Stage: Ready, Cached: true, Path: imported})
			return imported, held, nil
		}
	}
	var tick *time.Ticker
	var damage *TamperedError
	for {
		if damage == nil {
			held, whole, err := take(s, dir, b.verify)
			switch {
			case errors.As(err, &damage):
				j.report(Event{Stage: Damaged, Detail: damage.Error()})
			case err != nil:
				return "", nil, err
			case whole:
				pass()
				j.report(Event{Stage: Ready, Cached: tick == nil, Path: dir})
				return dir, held, nil
			}
		}
		held, err := tryLock(lockPath(dir), lockExclusive)
		if err != nil {
			if damage != nil {
				err = fmt.Errorf("%w: %w", damage, err)
			}
			return "", nil, fmt.Errorf("build engine %s (set %s to use another folder): %w", s.name, CacheEnv, err)
		}
		if held != nil {
			return j.underLock(ctx, held, mine, pass)
		}
		if damage != nil {
			if err := refuseInUse(dir, damage); err != nil {
				return "", nil, err
			}
		}
		if tick == nil {
			pass()
			j.report(Event{Stage: Waiting, Detail: "another run that is building it"})
			tick = time.NewTicker(lockPoll)
			defer tick.Stop()
		}
		select {
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// imported gives the folder of an engine that was imported, with a shared lock on it, and "" where there is none that
// is as it was.
func (j *job) imported() (string, *lock, error) {
	dir, err := j.cache.findBySource(j.spec, true)
	if dir == "" || err != nil {
		return "", nil, err
	}
	held, whole, err := take(j.spec, dir, j.verify)
	if damage, ok := errors.AsType[*TamperedError](err); ok {
		j.report(Event{Stage: Damaged, Detail: damage.Error()})
		return "", nil, nil
	}
	if !whole {
		return "", nil, err
	}
	return dir, held, nil
}

// refuseInUse gives an error for a damaged engine that runs or clusters use: it cannot be built again as long as they
// do. Where another run builds it already there is no error.
func refuseInUse(dir string, damage *TamperedError) error {
	held, err := tryLock(lockPath(dir), lockShared)
	if held == nil || err != nil {
		return err
	}
	return errors.Join(fmt.Errorf("%w: end the runs and clusters that use it (netproof cluster list), and it is built again by the next run",
		damage), held.release())
}

// job is the build of one engine.
type job struct {
	*builder
	spec  spec
	dir   string
	tmp   string
	begun time.Time
}

func (j *job) report(e Event) {
	e.Engine, e.Version = j.spec.name, j.spec.version
	j.builder.report(j.begun, e)
}

// underLock builds the engine, unless whoever had the lock before has done it, and turns the lock into a shared one.
func (j *job) underLock(ctx context.Context, held *lock, mine <-chan struct{}, pass func()) (string, *lock, error) {
	err := func() error {
		if isComplete(j.spec, j.dir) {
			var damage *TamperedError
			if err := j.verify(j.spec, j.dir); !errors.As(err, &damage) {
				return err
			}
		}
		select {
		case <-mine:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return j.build(ctx, pass)
	}()
	if err == nil {
		err = held.share()
	}
	if err != nil {
		return "", nil, errors.Join(err, held.release())
	}
	j.report(Event{Stage: Ready, Path: j.dir})
	return j.dir, held, nil
}

// build makes the engine in a folder beside its final one and renames that when all is there. The caller holds the
// lock, so a folder that is there already was left by a build that was killed.
func (j *job) build(ctx context.Context, pass func()) (err error) {
	if err := os.RemoveAll(j.tmp); err != nil {
		return fmt.Errorf("remove the remains of an interrupted build: %w", err)
	}
	defer func() {
		if removeErr := os.RemoveAll(j.tmp); removeErr != nil {
			err = errors.Join(err, fmt.Errorf("remove build folder: %w", removeErr))
		}
	}()
	for _, sub := range []string{j.src(), j.out(), j.gotmp()} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return fmt.Errorf("make build folder of engine %s: %w", j.spec.name, err)
		}
	}
	if err := writeModule(j.spec.files, j.src()); err != nil {
		return fmt.Errorf("write module of engine %s: %w", j.spec.name, err)
	}
	total, err := j.download(ctx)
	if err != nil {
		return err
	}
	pass()
	if err := j.compile(ctx, total); err != nil {
		return err
	}
	return j.finish(ctx)
}

func (j *job) src() string   { return filepath.Join(j.tmp, "src") }
func (j *job) out() string   { return filepath.Join(j.tmp, "out") }
func (j *job) gotmp() string { return filepath.Join(j.tmp, "tmp") }

// writeModule writes the embedded module files under their real names.
func writeModule(files fs.FS, dir string) error {
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(strings.TrimSuffix(name, ".txt")))
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
}

// download brings every module that the programs need into the module cache, and counts the packages that are not in
// the build cache yet. From a warm module cache it needs no network.
func (j *job) download(ctx context.Context) (stale int, err error) {
	if err := acquire(ctx, j.downloads); err != nil {
		return 0, err
	}
	defer release(j.downloads)
	missing := missingModules(j.spec.files, j.toolchain.settings["GOMODCACHE"])
	done := 0
	j.report(Event{Stage: Downloading, Total: missing})
	args := append([]string{"list", "-deps"}, buildFlags(j.spec)...)
	args = append(args, "-f", "{{if .Stale}}{{.ImportPath}}{{end}}")
	stdout, err := j.run(ctx, "download modules", append(args, j.packages()...), func(line string) bool {
		module, ok := strings.CutPrefix(line, "go: downloading ")
		if ok {
			done++
			j.report(Event{Stage: Downloading, Done: done, Total: max(done, missing), Detail: module})
		}
		return ok
	})
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(stdout) {
		if len(bytes.TrimSpace(line)) > 0 {
			stale++
		}
	}
	return stale, nil
}

// compile builds all programs with one go command, so that what they share is compiled once and one can link while
// another compiles.
func (j *job) compile(ctx context.Context, total int) error {
	select {
	case j.compiles <- struct{}{}:
	default:
		j.report(Event{Stage: Waiting, Detail: "the engines before it"})
		if err := acquire(ctx, j.compiles); err != nil {
			return err
		}
	}
	defer release(j.compiles)
	done, mains := 0, 0
	j.report(Event{Stage: Compiling, Total: total})
	args := append([]string{"build", "-v"}, buildFlags(j.spec)...)
	args = append(args, "-o", j.out()+"/")
	_, err := j.run(ctx, "compile", append(args, j.packages()...), func(line string) bool {
		if !isPackageLine(line) {
			return false
		}
		done++
		j.report(Event{Stage: Compiling, Done: done, Total: max(done, total), Detail: line})
		if slices.Contains(j.packages(), line) {
			mains++
		}
		// A main package comes after all that it imports. Counting to total would not do: another engine may have
		// compiled packages of this one since they were counted.
		if mains == len(j.spec.programs) {
			j.report(Event{Stage: Linking, Detail: j.programNames()})
		}
		return true
	})
	return err
}

// finish gives the executables their names, adds data files and manifest, and puts the whole in its place.
func (j *job) finish(ctx context.Context) error {
	s := j.spec
	for _, p := range s.programs {
		if built := executableName(p.pkg); built != p.file {
			if err := os.Rename(filepath.Join(j.out(), built), filepath.Join(j.out(), p.file)); err != nil {
				return fmt.Errorf("name program of engine %s: %w", s.name, err)
			}
		}
	}
	for alias, target := range s.aliases {
		if err := os.Symlink(target, filepath.Join(j.out(), alias)); err != nil {
			return fmt.Errorf("name program of engine %s: %w", s.name, err)
		}
	}
	for _, d := range s.data {
		if err := j.copyData(ctx, d); err != nil {
			return err
		}
	}
	source, err := sourceDigest(s)
	if err != nil {
		return err
	}
	m := manifest{
		Name: s.name, Version: s.version, Source: source, Toolchain: j.toolchain.identity(),
		Built: time.Now().UTC().Truncate(time.Second), Seconds: int(time.Since(j.begun).Seconds()),
		Files: map[string]int64{},
	}
	for _, file := range s.fileNames() {
		info, err := os.Stat(filepath.Join(j.out(), file))
		if err != nil {
			return fmt.Errorf("check engine %s: %w", s.name, err)
		}
		m.Files[file] = info.Size()
	}
	if m.Digests, err = digests(s, j.out()); err != nil {
		return err
	}
	if err := writeManifest(j.out(), m); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return putInPlace(s, j.out(), j.dir)
}

// copyData takes a file as it is out of a module of the build list.
func (j *job) copyData(ctx context.Context, d dataFile) error {
	stdout, err := j.run(ctx, "find module "+d.module, []string{"list", "-m", "-f", "{{.Dir}}", d.module}, nil)
	if err != nil {
		return err
	}
	from := filepath.Join(strings.TrimSpace(string(stdout)), filepath.FromSlash(d.path))
	content, err := readData(from)
	if err != nil {
		return fmt.Errorf("copy %s of engine %s: %w", d.file, j.spec.name, err)
	}
	if err := os.WriteFile(filepath.Join(j.out(), d.file), content, 0o644); err != nil {
		return fmt.Errorf("copy %s of engine %s: %w", d.file, j.spec.name, err)
	}
	return nil
}

// readData gives the content of a file, or a tar stream of the files in a folder.
func readData(from string) ([]byte, error) {
	info, err := os.Stat(from)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return os.ReadFile(from)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(from)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (j *job) packages() []string {
	var pkgs []string
	for _, p := range j.spec.programs {
		pkgs = append(pkgs, p.pkg)
	}
	return pkgs
}

func (j *job) programNames() string {
	var names []string
	for _, p := range j.spec.programs {
		names = append(names, p.file)
	}
	return strings.Join(names, ", ")
}

// executableName is the name that the go command gives to the program of a package: the last element of its import path
// that is not a major version.
func executableName(pkg string) string {
	base := path.Base(pkg)
	if len(base) > 1 && base[0] == 'v' {
		if n, err := strconv.Atoi(base[1:]); err == nil && n > 1 {
			return path.Base(path.Dir(pkg))
		}
	}
	return base
}

// isPackageLine tells the package names that `go build -v` prints from its error messages.
func isPackageLine(line string) bool {
	return line != "" && !strings.ContainsAny(line, " \t:#")
}

// missingModules counts the modules that a build list names and the module cache does not have unpacked. It serves the
// progress report, so whatever cannot be read counts as nothing.
func missingModules(files fs.FS, modcache string) int {
	content, err := fs.ReadFile(files, "go.mod.txt")
	if err != nil || modcache == "" {
		return 0
	}
	missing := 0
	for _, m := range requirements(string(content)) {
		if _, err := os.Stat(filepath.Join(modcache, filepath.FromSlash(m))); errors.Is(err, fs.ErrNotExist) {
			missing++
		}
	}
	return missing
}

// requirements lists the modules that a go.mod requires, as the names of their folders in the module cache, where a
// capital letter is written as an exclamation mark and the small one.
func requirements(gomod string) []string {
	var modules []string
	block := ""
	for line := range strings.Lines(gomod) {
		line, _, _ = strings.Cut(line, "//")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[1] == "(":
			block = fields[0]
		case len(fields) == 1 && fields[0] == ")":
			block = ""
		case len(fields) == 3 && fields[0] == "require":
			modules = append(modules, escapeCapitals(fields[1]+"@"+fields[2]))
		case len(fields) == 2 && block == "require":
			modules = append(modules, escapeCapitals(fields[0]+"@"+fields[1]))
		}
	}
	return modules
}

func escapeCapitals(s string) string {
	var b strings.Builder
	for _, r := range s {
		if 'A' <= r && r <= 'Z' {
			b.WriteByte('!')
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func acquire(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func release(slots chan struct{}) { <-slots }

// interruptGrace is how long the go command gets to tidy up after itself before it is killed.
const interruptGrace = 5 * time.Second

// run starts the go command in the engine's module. Each line of its standard error goes to seen; lines that seen does
// not take are kept for the error. The command runs in a process group of its own, which is gone, compilers and all,
// when run returns.
func (j *job) run(ctx context.Context, step string, args []string, seen func(string) bool) ([]byte, error) {
	// A parent-death signal is sent when the parent thread ends, so this one must last as long as the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	rest := &tail{}
	stderr := newLineWriter(func(line string) {
		if seen == nil || !seen(line) {
			rest.add(line)
		}
	})
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, j.toolchain.path, args...)
	cmd.Dir = j.src()
	cmd.Env = j.toolchain.buildEnv(j.gotmp())
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	inGroup(cmd)
	cmd.WaitDelay = interruptGrace
	err := cmd.Start()
	if err == nil {
		err = cmd.Wait()
		stderr.flush()
		if ctx.Err() != nil {
			killGroup(cmd.Process.Pid)
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, newBuildError(j.spec, step, rest.String(), err)
	}
	return stdout.Bytes(), nil
}

// lineWriter hands on what is written to it line by line.
type lineWriter struct {
	mu   sync.Mutex
	part []byte
	line func(string)
}

var _ io.Writer = (*lineWriter)(nil)

func newLineWriter(line func(string)) *lineWriter { return &lineWriter{line: line} }

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.part = append(w.part, p...)
	for {
		advance, token, err := bufio.ScanLines(w.part, false)
		if err != nil || advance == 0 {
			return len(p), err
		}
		w.line(string(token))
		w.part = w.part[advance:]
	}
}

// flush hands on a last line that has no end.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.part) > 0 {
		w.line(string(w.part))
		w.part = nil
	}
}
