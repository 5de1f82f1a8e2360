package scenario

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/netproof/netproof/harness/words"
)

// rollOut are the steps in which netproof.yaml applies the policies. Each policy is in one of them.
func (f *plainFolder) rollOut(asserted *AssertionsSpec) (out []Step) {
	used := map[*object]*RollOut{}
	names := map[string]Position{OpenStep: f.s.At}
	for i := range asserted.Steps {
		in := &asserted.Steps[i]
		v := asserted.stepsAt.items[i]
		at := v.at
		if name := v.get("name"); name != nil {
			at = name.at
		}
		step := Step{Name: in.Name, At: v.at, nameAt: at, Expect: &Expect{Default: computed, At: v.at, defaultAt: v.at}}
		switch first, twice := names[in.Name]; {
		case in.Name == "":
			f.add(at, "add `name: close everything`", "the step has no name")
		case in.Name == OpenStep:
			f.add(at, "give it another name", "the step that comes before all others is called `%s`", OpenStep)
		case twice:
			f.add(at, "give one of them another name", "duplicate step `%s`: also at %s", in.Name, first.Short())
		case strings.ContainsAny(in.Name, "\n\r\t"), len(in.Name) > maxStepName:
			f.add(at, "write it on one short line", "the name of the step is too long, or has several lines")
		}
		names[in.Name] = at
		if len(in.Apply) == 0 {
			f.add(v.keyAt("apply"), "add `apply: [deny.yaml]`", "the step applies nothing")
		}
		for j, text := range in.Apply {
			where := v.get("apply").items[j]
			found := f.policiesOf(text)
			if len(found) == 0 {
				f.add(where.at, didYouMean(text, f.policyNames()), "no policy of the folder is `%s`, or in a file of that name", shorten(text))
			}
			for _, o := range found {
				if other := used[o]; other != nil {
					f.add(where.at, "apply it once", "%s is applied in step `%s` already", o, other.Name)
					continue
				}
				used[o] = in
				step.Apply = append(step.Apply, Apply{At: o.at, objects: []*object{o}})
			}
		}
		out = append(out, step)
	}
	var left []string
	for _, o := range f.policies {
		if used[o] == nil {
			left = append(left, o.String())
		}
	}
	if len(left) > 0 {
		f.add(asserted.stepsAt.at, "add a step that applies the rest", "no step applies %s", words.And(left))
	}
	last := &out[len(out)-1]
	last.policies, last.Expect.Rules = true, asserted.Rules
	return out
}

// policiesOf are the policies that an entry of a step means: by kind, namespace and name, or by their file.
func (f *plainFolder) policiesOf(text string) (out []*object) {
	for _, o := range f.policies {
		file := filepath.ToSlash(o.at.File)
		relative := file
		for _, root := range f.roots {
			if rest, ok := strings.CutPrefix(file, filepath.ToSlash(root)+"/"); ok {
				relative = rest
			}
		}
		if strings.EqualFold(text, o.key().Path()) || glob(text, relative) || glob(text, filepath.Base(file)) {
			out = append(out, o)
		}
	}
	return out
}

// policyNames are what steps may call policies.
func (f *plainFolder) policyNames() (out []string) {
	for _, o := range f.policies {
		for _, name := range []string{o.key().Path(), filepath.Base(filepath.ToSlash(o.at.File))} {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}
