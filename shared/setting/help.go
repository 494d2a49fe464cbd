package setting

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
)

// Help writes a line for each setting of the struct s, in its order: the key, the field's tag help, and the default,
// from the tag or, where it is computed, from defaults by key.
func Help(w io.Writer, s any, defaults map[string]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for f := range reflect.TypeOf(s).Fields() {
		tag, value, _ := strings.Cut(f.Tag.Get("env"), ", default=")
		key, _, _ := strings.Cut(tag, ",")
		if value = cmp.Or(value, defaults[key]); value != "" {
			value = " [" + value + "]"
		}
		fmt.Fprintf(table, "  %s\t%s%s\n", key, f.Tag.Get("help"), value)
	}
	return table.Flush()
}
