package setting

import (
	"cmp"
	"errors"
	"fmt"
)

// Faults gathers what a Validate method finds wrong. The zero value has found nothing.
type Faults struct{ errs []error }

// Add notes what is wrong with the setting key; the format takes %w.
func (f *Faults) Add(key, format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf(key+": "+format, args...))
}

// Err returns all that was noted, joined with more, or nil.
func (f *Faults) Err(more ...error) error { return errors.Join(append(f.errs, more...)...) }

// Between notes when the setting key, whose value is v, is below low or above high.
func Between[T cmp.Ordered](f *Faults, key string, v, low, high T) {
	if v < low || v > high {
		f.Add(key, "%v is not between %v and %v", v, low, high)
	}
}
