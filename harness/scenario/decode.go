package scenario

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/netproof/netproof/harness/words"
)

// decoder fills Go values from YAML values, strictly: what does not fit is reported, with the fix, and decoding goes
// on.
type decoder struct {
	c *collector
	// lenient decoders read what they know and pass over other keys.
	lenient bool
	// lost counts the problems about lost indentation; they explain all others of a document.
	lost []Problem
}

// selfDecoder is implemented by types that are written in more than one way.
type selfDecoder interface {
	decodeFrom(d *decoder, v *value)
}

var (
	positionType    = reflect.TypeFor[Position]()
	timeType        = reflect.TypeFor[metav1.Time]()
	fieldsType      = reflect.TypeFor[metav1.FieldsV1]()
	intOrStringType = reflect.TypeFor[intstr.IntOrString]()
)

// decode fills into, which must be a pointer. what names the value for messages.
func (d *decoder) decode(v *value, into any, what string) {
	d.value(v, reflect.ValueOf(into).Elem(), what)
}

func (d *decoder) value(v *value, into reflect.Value, what string) {
	if into.CanAddr() {
		if self, ok := into.Addr().Interface().(selfDecoder); ok {
			self.decodeFrom(d, v)
			return
		}
	}
	switch into.Type() {
	case timeType, fieldsType:
		return // set by the API server, meaningless in a file
	case intOrStringType:
		d.intOrString(v, into, what)
		return
	}
	switch into.Kind() {
	case reflect.Pointer:
		if v.kind == nullValue {
			return
		}
		into.Set(reflect.New(into.Type().Elem()))
		d.value(v, into.Elem(), what)
	case reflect.Struct:
		d.structure(v, into, what)
	case reflect.Slice:
		d.list(v, into, what)
	case reflect.Map:
		d.mapping(v, into, what)
	case reflect.String:
		if s, ok := d.text(v, what); ok {
			into.SetString(s)
		}
	case reflect.Bool:
		if b, ok := v.boolean(); ok {
			into.SetBool(b)
		} else {
			d.c.add(v.at, "write true or false", "%s must be true or false, and this is %s", what, v.describe())
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, ok := v.integer()
		switch {
		case !ok:
			fix := "write a whole number"
			if _, err := strconv.Atoi(v.text); err == nil {
				fix = "write the number without quotes"
			}
			d.c.add(v.at, fix, "%s must be a whole number, and this is %s", what, v.describe())
		case into.OverflowInt(n):
			d.c.add(v.at, "write a smaller number", "%s is out of range: %d", what, n)
		default:
			into.SetInt(n)
		}
	default:
		// A field of a type that no file needs, such as owner references' inner types.
		return
	}
}

// describe says what a value is, for messages.
func (v *value) describe() string {
	if v.kind != scalarValue {
		return v.kind.String()
	}
	if kind := v.nonText(); kind != "" {
		return fmt.Sprintf("%s, `%s`", kind, shorten(v.text))
	}
	return fmt.Sprintf("the text %q", shorten(v.text))
}

func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// text reads a scalar that must be text to Kubernetes' YAML too.
func (d *decoder) text(v *value, what string) (string, bool) {
	if v.kind == nullValue {
		d.c.add(v.at, "write text, or leave the key out", "%s is empty", what)
		return "", false
	}
	if v.kind != scalarValue {
		d.c.add(v.at, "write text", "%s must be text, and this is %s", what, v.kind)
		return "", false
	}
	if kind := v.nonText(); kind != "" {
		d.c.add(v.at, fmt.Sprintf("quote it: %q", v.text), "%s must be text, and to YAML `%s` is %s", what, v.text, kind)
		return "", false
	}
	return v.text, true
}

// key reads a key that is a name or a label, not a word of the format.
func (d *decoder) key(k *value, what string) (string, bool) {
	kind := k.nonText()
	if k.tag == "!!null" {
		kind = "nothing"
	}
	if kind != "" {
		d.c.add(k.at, fmt.Sprintf("quote it: %q", k.text), "a key of %s must be text, and to YAML `%s` is %s", what, k.text, kind)
		return "", false
	}
	return k.text, true
}

func (d *decoder) intOrString(v *value, into reflect.Value, what string) {
	if n, ok := v.integer(); ok {
		if n < -1<<31 || n >= 1<<31 {
			d.c.add(v.at, "write a number between 1 and 65535", "%s is out of range: %d", what, n)
			return
		}
		into.Set(reflect.ValueOf(intstr.FromInt32(int32(n))))
		return
	}
	if s, ok := d.text(v, what); ok {
		into.Set(reflect.ValueOf(intstr.FromString(s)))
	}
}

func (d *decoder) list(v *value, into reflect.Value, what string) {
	if v.kind == nullValue {
		return
	}
	if v.kind != listValue {
		fix := "put `- ` before each item"
		if v.kind == scalarValue && v.plain && startsWithBullet(v.text) {
			fix = bulletFix
		}
		d.c.add(v.at, fix, "%s must be a list, and this is %s", what, v.describe())
		return
	}
	out := reflect.MakeSlice(into.Type(), len(v.items), len(v.items))
	for i, item := range v.items {
		d.value(item, out.Index(i), fmt.Sprintf("%s[%d]", what, i))
	}
	into.Set(out)
}

func (d *decoder) mapping(v *value, into reflect.Value, what string) {
	if v.kind == nullValue {
		return
	}
	if v.kind != mappingValue {
		d.c.add(v.at, "write `key: value` lines", "%s must be a mapping, and this is %s", what, v.describe())
		return
	}
	out := reflect.MakeMapWithSize(into.Type(), len(v.entries))
	for _, e := range v.entries {
		key, ok := d.key(e.key, what)
		if !ok {
			continue
		}
		item := reflect.New(into.Type().Elem()).Elem()
		d.value(e.value, item, what+"."+key)
		out.SetMapIndex(reflect.ValueOf(key).Convert(into.Type().Key()), item)
	}
	into.Set(out)
}

// property is a field of a structure by its name in files.
type property struct {
	index []int
	typ   reflect.Type
}

// fieldsOf lists the fields of a structure by their JSON names, those of inlined structures included.
func fieldsOf(t reflect.Type) map[string]property {
	out := map[string]property{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct && strings.Contains(options, "inline"):
			for inner, p := range fieldsOf(f.Type) {
				out[inner] = property{append([]int{i}, p.index...), p.typ}
			}
		case name != "":
			out[name] = property{[]int{i}, f.Type}
		}
	}
	return out
}

func propertyNames(fields map[string]property) []string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	return names
}

func (d *decoder) structure(v *value, into reflect.Value, what string) {
	if at := into.FieldByName("At"); at.IsValid() && at.Type() == positionType {
		at.Set(reflect.ValueOf(v.at))
	}
	if v.kind == nullValue {
		return
	}
	if v.kind != mappingValue {
		fix := "write `key: value` lines"
		if v.kind == listValue {
			fix = "remove the `- `, or give one mapping instead of a list"
		}
		d.c.add(v.at, fix, "%s must be a mapping, and this is %s", cmp.Or(what, "the document"), v.describe())
		return
	}
	fields := fieldsOf(into.Type())
	strays := d.strays(v, into.Type(), what)
	for _, e := range v.entries {
		f, known := fields[e.key.text]
		switch {
		case known:
			d.value(e.value, into.FieldByIndex(f.index), child(what, e.key.text))
		case d.lenient || strays[e.key.text] || hasBullets(e.key):
		default:
			names := make([]string, 0, len(fields))
			for name := range fields {
				if into.Type() == reflect.TypeFor[metav1.ObjectMeta]() && !slices.Contains(writtenMeta, name) {
					continue
				}
				names = append(names, name)
			}
			d.c.add(e.key.at, didYouMean(e.key.text, names), "unknown key `%s` in %s", e.key.text, cmp.Or(what, "the document"))
		}
	}
}

// writtenMeta are the keys of metadata that people write; the API server sets the others.
var writtenMeta = []string{"name", "namespace", "labels", "annotations"}

func child(what, key string) string {
	switch {
	case what == "":
		return key
	case strings.HasPrefix(what, "a "):
		return key + " of " + what
	}
	return what + "." + key
}

// strays finds keys that stand beside the key that they belong into, as happens when a snippet is copied from a page
// that swallows leading spaces: `metadata:` holds nothing, and `name:` follows on the same level. Each group is one
// problem, and the result holds their keys.
func (d *decoder) strays(v *value, t reflect.Type, what string) map[string]bool {
	type empty struct {
		key string
		typ reflect.Type
	}
	fields := fieldsOf(t)
	var open []empty
	home := func(key string) (string, reflect.Type, bool) {
		for _, o := range slices.Backward(open) {
			if o.typ.Kind() == reflect.Struct {
				if f, ok := fieldsOf(o.typ)[key]; ok {
					return o.key, f.typ, true
				}
			}
		}
		if len(open) > 0 && open[len(open)-1].typ.Kind() == reflect.Map && !d.lenient && suggest(key, propertyNames(fields)) == "" {
			return open[len(open)-1].key, open[len(open)-1].typ.Elem(), true
		}
		return "", nil, false
	}
	found := map[string]bool{}
	groups := map[string][]*value{}
	var order []string
	for _, e := range v.entries {
		typ := reflect.Type(nil)
		if f, known := fields[e.key.text]; known {
			typ = f.typ
		} else if parent, inner, ok := home(e.key.text); ok {
			typ = inner
			found[e.key.text] = true
			if groups[parent] == nil {
				order = append(order, parent)
			}
			groups[parent] = append(groups[parent], e.key)
		}
		if typ == nil || e.value.kind != nullValue {
			continue
		}
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() == reflect.Struct || typ.Kind() == reflect.Map {
			open = append(open, empty{e.key.text, typ})
		}
	}
	for _, parent := range order {
		var names []string
		for _, k := range groups[parent] {
			names = append(names, "`"+k.text+"`")
		}
		verb := "stand"
		if len(names) == 1 {
			verb = "stands"
		}
		p := problemAt(groups[parent][0].at,
			fmt.Sprintf("indent %s by two spaces more than `%s`", words.And(names), parent),
			"indentation lost: %s %s beside `%s` instead of inside it%s", words.And(names), verb, parent, ofWhat(what))
		d.c.problems = append(d.c.problems, p)
		d.lost = append(d.lost, p)
	}
	return found
}

func ofWhat(what string) string {
	if what == "" {
		return ""
	}
	return ", in " + what
}
