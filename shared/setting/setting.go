// Package setting reads a program's settings from the environment: into a struct, with defaults, everything that is
// wrong reported at once, unknown keys under the program's prefixes refused.
//
// The struct carries the tags of github.com/sethvargo/go-envconfig. A field that is a struct without a key of its own
// is walked, with its prefix= where it has one; other options on such a field are not supported. Values are trimmed
// of white space; a variable that is set but empty counts as unset, as Helm renders such.
//
// What holds a secret is a [secret.Value]: no error shows the value of a setting whose type contains one. Any other
// value is quoted in the error that refuses it.
package setting

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/sethvargo/go-envconfig"
)

// Load fills into, a pointer to a struct with go-envconfig tags, from environ (as os.Environ returns it), calls its
// Validate method where it has one, and refuses keys that start with one of prefixes and are no setting, with a
// suggestion; keys that Kubernetes sets for services (APSS_RELAY_SERVICE_HOST, APSS_RELAY_PORT_8444_TCP_ADDR, ...) are
// let pass. The error joins every fault, each on a line of its own that names the key, what is wrong and what is right.
//
// Values already in the struct are defaults: the environment replaces them. Of a variable given twice the last counts.
//
// Validate, of one error or of several joined, runs also when there were faults before; a refused setting then has the
// value it would have if it were unset. So that this misleads nobody, what Validate says about a key that is already
// at fault, naming it anywhere in its text, is left out.
func Load(environ []string, prefixes []string, into any) error {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("settings are loaded into a pointer to a struct, not %T", into)
	}
	l := loader{env: make(map[string]string, len(environ))}
	for _, e := range environ {
		key, value, _ := strings.Cut(e, "=")
		if value = strings.TrimSpace(value); value != "" {
			l.env[key] = value
		} else {
			delete(l.env, key)
		}
	}
	l.walk(v.Elem(), "")
	l.unknown(prefixes)
	if v, ok := into.(interface{ Validate() error }); ok {
		l.validate(v.Validate())
	}
	errs := make([]error, len(l.faults))
	for i := range l.faults {
		errs[i] = &l.faults[i]
	}
	return errors.Join(errs...)
}

// A fault is one thing wrong. Key is empty for what Validate said about several settings.
type fault struct {
	key string
	err error
}

func (f *fault) Error() string {
	if f.key == "" {
		return f.err.Error()
	}
	return f.key + ": " + f.err.Error()
}

func (f *fault) Unwrap() error { return f.err }

type loader struct {
	env    map[string]string
	known  []string
	faults []fault
}

func (l *loader) fault(key string, err error) { l.faults = append(l.faults, fault{key, err}) }

// walk loads the fields of struct v, each by itself because envconfig ends at the first error.
func (l *loader) walk(v reflect.Value, prefix string) {
	for f, field := range v.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("env"), ",")
		key = strings.TrimSpace(key)
		switch {
		case key != "":
			l.load(f, field, prefix, key, options)
		case !f.IsExported() && !f.Anonymous:
		case field.Kind() == reflect.Struct:
			_, p, _ := strings.Cut(options, "prefix=")
			l.walk(field, prefix+p)
		case field.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Struct && field.CanSet():
			if field.IsNil() {
				field.Set(reflect.New(f.Type.Elem()))
			}
			_, p, _ := strings.Cut(options, "prefix=")
			l.walk(field.Elem(), prefix+p)
		}
	}
}

// load sets one field through envconfig.
func (l *loader) load(f reflect.StructField, field reflect.Value, prefix, key, options string) {
	full := prefix + key
	l.known = append(l.known, full)
	value, found := l.env[full]
	if !found && !strings.Contains(options, "default=") && !strings.Contains(options, "required") {
		return // envconfig would hand "" to decoders
	}
	if !f.IsExported() {
		l.fault(full, fmt.Errorf("the field %s is not exported", f.Name))
		return
	}
	f.Anonymous, f.Offset, f.Index = false, 0, nil
	one := reflect.New(reflect.StructOf([]reflect.StructField{f}))
	one.Elem().Field(0).Set(field)
	var err error
	if found {
		err = decode(f.Type, value)
	}
	if err == nil {
		err = envconfig.ProcessWith(context.Background(), &envconfig.Config{
			Target:           one.Interface(),
			Lookuper:         envconfig.PrefixLookuper(prefix, envconfig.MapLookuper(l.env)),
			DefaultOverwrite: true,
		})
	}
	switch {
	case err == nil:
		field.Set(one.Elem().Field(0))
	case errors.Is(err, envconfig.ErrMissingRequired):
		l.fault(full, errors.New("is required and not set"))
	case found:
		l.fault(full, explain(f.Type, options, value, strings.TrimPrefix(err.Error(), f.Name+": ")))
		delete(l.env, full)
		if strings.Contains(options, "default=") {
			l.known = l.known[:len(l.known)-1]
			l.load(f, field, prefix, key, options)
		}
	default: // the program's own fault: a bad tag or default
		l.fault(full, err)
	}
}

// decode tries value where t, or each of t's elements, decodes itself. Envconfig tries a type's other decoders when its
// UnmarshalText fails, and so reads the word "abcd" into a netip.Addr as the four bytes of an address.
func decode(t reflect.Type, value string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch target := reflect.New(t).Interface().(type) {
	case envconfig.DecoderCtx:
		return target.EnvDecode(context.Background(), value)
	case envconfig.Decoder:
		return target.EnvDecode(value)
	case encoding.TextUnmarshaler:
		return target.UnmarshalText([]byte(value))
	}
	if t.Kind() == reflect.Slice {
		for item := range strings.SplitSeq(value, ",") {
			if err := decode(t.Elem(), strings.TrimSpace(item)); err != nil {
				return err
			}
		}
	}
	return nil
}

// unknown refuses the keys under prefixes that are no settings.
func (l *loader) unknown(prefixes []string) {
	var keys []string
	for key, value := range l.env {
		under := slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) })
		if under && !slices.Contains(l.known, key) && !serviceLink(key, value) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if near := Nearest(key, l.known); near != "" {
			l.fault(key, fmt.Errorf("is no setting; did you mean %s?", near))
		} else {
			l.fault(key, errors.New("is no setting"))
		}
	}
}

// validate adds what err says, unless it is about a key that is at fault already.
func (l *loader) validate(err error) {
	before := len(l.faults)
	var add func(error)
	add = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				add(err)
			}
			return
		}
		words := strings.FieldsFunc(err.Error(), func(r rune) bool {
			return r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9')
		})
		if !slices.ContainsFunc(l.faults[:before], func(f fault) bool { return slices.Contains(words, f.key) }) {
			l.fault("", err)
		}
	}
	if err != nil {
		add(err)
	}
}
