package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// CacheEnv is the environment variable that moves netproof's cache, engines included, to another folder.
const CacheEnv = "NETPROOF_CACHE"

var (
	// ErrUnknownCNI says that no engine exists for the network plugin that was asked for.
	ErrUnknownCNI = errors.New("unknown network plugin")
	// ErrNoGo says that an engine has to be built and that there is no Go toolchain to build it with.
	ErrNoGo = errors.New("no Go toolchain")
)

// Options says which engines are wanted and where they come from.
type Options struct {
	// CNI is the network plugin of the cluster, "calico" or "none". It decides which engines are needed.
	CNI string
	// EngineDir, when set, holds prebuilt programs; nothing is built then.
	EngineDir string
	// CacheDir is the folder of built engines. Empty means [DefaultCacheDir].
	CacheDir string
	// Verified says that the process that started this one has verified the engines in CacheDir a moment ago: they are
	// not read again.
	Verified bool
	// Progress, when set, hears what happens. It is never called twice at a time and must not block for long.
	Progress func(Event)
}

// verify is what looks at the content of an engine that is there.
func (o Options) verify() func(spec, string) error {
	if o.Verified {
		return func(spec, string) error { return nil }
	}
	return verify
}

// Engines are the programs of one cluster, complete and ready to run. They stay in place until Close: [Prune] passes
// over engines that are held.
type Engines struct {
	paths    map[string]string
	versions map[string]string
	dirs     map[string]string
	locks    []*lock
	// names are those of the engines, in the order in which they were added.
	names []string
}

// Path gives the absolute path of an executable, such as "kube-apiserver" or "calico-ipam". The name is one that the
// engines of the chosen network plugin have; asking for another is a mistake in the caller, answered by a panic.
func (e *Engines) Path(program string) string {
	path, ok := e.paths[program]
	if !ok {
		panic(fmt.Sprintf("engine: no program %q among %v", program, e.programs()))
	}
	return path
}

// Has says whether the set includes a program or data file of that name.
func (e *Engines) Has(program string) bool {
	_, ok := e.paths[program]
	return ok
}

// programs lists the names that Path answers to, sorted.
func (e *Engines) programs() []string {
	names := make([]string, 0, len(e.paths))
	for name := range e.paths {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Version gives the upstream version of an engine, such as "v3.30.1" for "calico", and "" for an engine that is not in
// the set.
func (e *Engines) Version(engine string) string { return e.versions[engine] }

// Dirs gives the folder of each engine by its name.
func (e *Engines) Dirs() map[string]string {
	dirs := make(map[string]string, len(e.dirs))
	for name, dir := range e.dirs {
		dirs[name] = dir
	}
	return dirs
}

// States describes the engines, which come from a cache.
func (e *Engines) States() ([]State, error) {
	var states []State
	for _, name := range e.names {
		state, err := stateOf(e.dirs[name])
		if err != nil {
			return nil, fmt.Errorf("describe engine %s: %w", name, err)
		}
		states = append(states, state)
	}
	return states, nil
}

// CRDs gives the manifest with the CustomResourceDefinitions of the network plugin, a YAML stream, and nil where the
// plugin has none.
func (e *Engines) CRDs() ([]byte, error) {
	path, ok := e.paths[crdsFile]
	if !ok {
		return nil, nil
	}
	manifest, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read custom resource definitions: %w", err)
	}
	return manifest, nil
}

// Close lets go of the engines: from now on [Prune] may remove them.
func (e *Engines) Close() error {
	var errs []error
	for _, l := range e.locks {
		errs = append(errs, l.release())
	}
	e.locks = nil
	return errors.Join(errs...)
}

// DefaultCacheDir gives the folder of built engines: engines/ under $NETPROOF_CACHE, or under netproof/ in the user's
// cache folder.
func DefaultCacheDir() (string, error) {
	if dir := os.Getenv(CacheEnv); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("resolve %s=%s: %w", CacheEnv, dir, err)
		}
		return filepath.Join(abs, "engines"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache folder (set %s to name one): %w", CacheEnv, err)
	}
	return filepath.Join(dir, "netproof", "engines"), nil
}

// Ensure gives the engines that a cluster with the network plugin of opts needs, building those that are not in the
// cache yet. A second call that starts meanwhile, in this process or another, waits for the first and uses its result.
//
// When ctx ends, the build is stopped with all of its processes, and nothing remains of it but the packages that Go's
// own build cache keeps. What is in the cache is verified before it is given. An engine whose content is not what was
// built is built again, which Progress hears as [Damaged]; without a Go toolchain that is a [*TamperedError]. Where
// somebody else could change programs there is an [*UntrustedError]. Other errors are a [*BuildError] for a build that
// did not succeed, a [*MissingError] for an EngineDir that lacks something, [ErrNoGo] and [ErrUnknownCNI], or the
// context's error.
func Ensure(ctx context.Context, opts Options) (*Engines, error) {
	wanted, err := specsFor(opts.CNI)
	if err != nil {
		return nil, err
	}
	if opts.EngineDir != "" {
		return fromDir(ctx, wanted, opts.EngineDir)
	}
	return ensure(ctx, wanted, opts)
}

// EnsureAll is [Ensure] for the engines of all local clusters. Of opts it takes CacheDir and Progress.
func EnsureAll(ctx context.Context, opts Options) (*Engines, error) {
	return ensureBuilt(ctx, specs(), opts)
}

// ensureBuilt is ensure for those who want what is in the cache.
func ensureBuilt(ctx context.Context, wanted []spec, opts Options) (*Engines, error) {
	return ensure(ctx, wanted, Options{CacheDir: opts.CacheDir, Progress: opts.Progress})
}

func ensure(ctx context.Context, wanted []spec, opts Options) (*Engines, error) {
	c, err := openCache(opts.CacheDir)
	if err != nil {
		return nil, err
	}
	tc, err := findToolchain(ctx)
	if err != nil && !errors.Is(err, ErrNoGo) {
		return nil, err
	}
	if err != nil {
		return c.withoutGo(ctx, wanted, opts, err)
	}
	b := newBuilder(c, tc, opts)
	return b.ensureAll(ctx, wanted)
}

// withoutGo gives engines that some toolchain built earlier, for a machine that has none now.
func (c cache) withoutGo(ctx context.Context, wanted []spec, opts Options, noGo error) (*Engines, error) {
	set := newSet()
	var missing []string
	for _, s := range wanted {
		dir, held, err := c.takeBySource(ctx, s, opts.verify())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("use engine %s, with no Go toolchain to build it again: %w", s.name, err), set.Close())
		}
		if dir == "" {
			missing = append(missing, s.name+" "+s.version)
			continue
		}
		set.hold(s, dir, held)
		if opts.Progress != nil {
			opts.Progress(Event{Engine: s.name, Version: s.version, Stage: Ready, Cached: true, Path: dir})
		}
	}
	if len(missing) > 0 {
		err := fmt.Errorf("build engines %s: %w", strings.Join(missing, ", "), noGo)
		return nil, errors.Join(err, set.Close())
	}
	return set, nil
}

// takeBySource takes an engine that some toolchain built, and gives "" where there is none. It waits for whoever is
// replacing or removing one.
func (c cache) takeBySource(ctx context.Context, s spec, verify func(spec, string) error) (string, *lock, error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		dir, err := c.findBySource(s, false)
		if dir == "" || err != nil {
			return "", nil, err
		}
		held, whole, err := take(s, dir, verify)
		if whole || err != nil {
			return dir, held, err
		}
		select {
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func newSet() *Engines {
	return &Engines{paths: map[string]string{}, versions: map[string]string{}, dirs: map[string]string{}}
}

// add puts the files of a complete engine into the set.
func (e *Engines) add(s spec, dir string) {
	for _, file := range s.fileNames() {
		e.paths[file] = filepath.Join(dir, file)
	}
	e.names = append(e.names, s.name)
	e.versions[s.name] = s.version
	e.dirs[s.name] = dir
}

// hold adds an engine with the lock that keeps Prune away from it, which is nil in a read-only cache.
func (e *Engines) hold(s spec, dir string, held *lock) {
	if held != nil {
		e.locks = append(e.locks, held)
	}
	e.add(s, dir)
}

// builder builds engines into a cache, several at a time, and reports what it does.
type builder struct {
	cache     cache
	toolchain toolchain
	progress  func(Event)
	// verify looks at the content of an engine that is there.
	verify func(spec, string) error

	mu sync.Mutex // serialises progress and guards active
	// active holds the last event of each engine that is not ready yet.
	active map[string]activity
	// downloads admits one engine at a time: downloads share one connection to the proxy anyway, and the order in which
	// engines finish downloading is the order in which they can start to compile.
	downloads chan struct{}
	// compiles admits as many engines as the machine has memory for.
	compiles chan struct{}
}

func newBuilder(c cache, tc toolchain, opts Options) *builder {
	return &builder{
		cache: c, toolchain: tc, progress: opts.Progress, verify: opts.verify(), active: map[string]activity{},
		downloads: make(chan struct{}, 1),
		compiles:  make(chan struct{}, parallelBuilds()),
	}
}

// activity is what an engine did last, and when the work on it began.
type activity struct {
	event Event
	begun time.Time
}

func (b *builder) report(begun time.Time, e Event) {
	if b.progress == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Elapsed = time.Since(begun)
	if e.Stage == Ready {
		delete(b.active, e.Engine)
	} else {
		b.active[e.Engine] = activity{e, begun}
	}
	b.progress(e)
}

// heartbeatInterval is how often an engine that has nothing new to say, because a large package compiles or a program
// is linked, says that it is still at work.
const heartbeatInterval = time.Second

// heartbeat repeats the last event of each engine at work, with the time that has passed, until ctx ends.
func (b *builder) heartbeat(ctx context.Context) {
	if b.progress == nil {
		return
	}
	tick := time.NewTicker(heartbeatInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		b.mu.Lock()
		for _, name := range slices.Sorted(maps.Keys(b.active)) {
			a := b.active[name]
			a.event.Elapsed = time.Since(a.begun)
			b.progress(a.event)
		}
		b.mu.Unlock()
	}
}

// ensureAll makes every wanted engine complete and holds it. The first failure stops the other builds.
func (b *builder) ensureAll(ctx context.Context, wanted []spec) (*Engines, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dirs := make([]string, len(wanted))
	locks := make([]*lock, len(wanted))
	// Each engine starts its download when the one before has finished its own, so that the order of specs holds.
	turn := make(chan struct{})
	close(turn)
	var wg sync.WaitGroup
	for i, s := range wanted {
		mine, next := turn, make(chan struct{})
		turn = next
		wg.Go(func() {
			pass := sync.OnceFunc(func() { close(next) })
			defer pass()
			var err error
			if dirs[i], locks[i], err = b.ensureOne(ctx, s, mine, pass); err != nil {
				cancel(err)
			}
		})
	}
	beating, stop := context.WithCancel(ctx)
	var heart sync.WaitGroup
	heart.Go(func() { b.heartbeat(beating) })
	wg.Wait()
	stop()
	heart.Wait()
	set := newSet()
	for i, s := range wanted {
		set.hold(s, dirs[i], locks[i])
	}
	if ctx.Err() != nil {
		return nil, errors.Join(context.Cause(ctx), set.Close())
	}
	return set, nil
}
