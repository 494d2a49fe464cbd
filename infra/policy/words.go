package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// quoted finds the messages and fields of the functions' logs that a filter of Cloud Logging names.
var (
	message = regexp.MustCompile(`jsonPayload\.message="([^"]+)"`)
	member  = regexp.MustCompile(`jsonPayload\.([a-z_]+)`)
)

// Words returns what alert policies and log-based metrics look for in the functions' logs, and these do not say.
func Words(c *Config) (faults []string) {
	v, err := c.Plan(minimal()).Value("local.log_lines")
	if err != nil {
		return []string{err.Error()}
	}
	said := map[string]bool{}
	for _, dir := range []string{"functions/internal/health", "functions/internal/secretmanager"} {
		files, err := c.packageFiles(dir)
		if err != nil {
			return []string{err.Error()}
		}
		for s := range literals(files) {
			said[s] = true
		}
	}
	for name, line := range v.Elements() {
		filter := line.GetAttr("filter").AsString()
		found := message.FindAllStringSubmatch(filter, -1)
		if len(found) == 0 {
			faults = append(faults, name.AsString()+": names no message")
		}
		for _, m := range found {
			if !said[m[1]] {
				faults = append(faults, fmt.Sprintf("%s: no function logs %q", name.AsString(), m[1]))
			}
		}
		filter += " jsonPayload." + line.GetAttr("field").AsString()
		for _, m := range member.FindAllStringSubmatch(filter, -1) {
			own := strings.TrimPrefix(strings.TrimPrefix(m[1], "events"), "alerts") // what is said of each topic
			if m[1] != "message" && !said[m[1]] && !said[own] {
				faults = append(faults, fmt.Sprintf("%s: no function logs a field %s", name.AsString(), m[1]))
			}
		}
	}
	slices.Sort(faults)
	return faults
}
