package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Grants lists every grant of c and its modules, one a line, as the configuration says it: where, which role, to whom, on what,
// under which condition, for each of what. A reviewer reads it, and the tests compare it with the last one that was read.
func Grants(c *Config) string {
	var out strings.Builder
	for _, c := range c.all() {
		for _, address := range sortedKeys(c.resources) {
			kind, _, _ := strings.Cut(address, ".")
			if !isGrant(kind) {
				continue
			}
			b := c.resources[address].Body
			var on []string
			for _, a := range sortedKeys(b.Attributes) {
				if !slices.Contains([]string{"project", "location", "role", "member", "for_each", "count", "depends_on"}, a) || a == "project" && kind == "google_project_iam_member" {
					on = append(on, a+"="+c.argument(b, a))
				}
			}
			fmt.Fprintf(&out, "%s/%s\n  role   %s\n  on     %s\n  to     %s\n", c.dir, address, c.argument(b, "role"), strings.Join(on, " "), c.argument(b, "member"))
			if condition := block(b, "condition"); condition != nil {
				fmt.Fprintf(&out, "  if     %s\n", c.argument(condition, "expression"))
			}
			for _, many := range []string{"for_each", "count"} {
				if s := c.argument(b, many); s != "" {
					fmt.Fprintf(&out, "  %-6s %s\n", strings.TrimSuffix(many, "_each"), s)
				}
			}
			// A table has what a reviewer wants to see.
			if table := c.argument(b, "for_each"); strings.HasPrefix(table, "local.") {
				if v, err := c.Plan(minimal()).Value(table); err == nil && v.LengthInt() > 0 {
					fmt.Fprintf(&out, "  these  %s\n", strings.Join(sortedKeys(v.AsValueMap()), " "))
				}
			}
		}
	}
	return out.String()
}

func isGrant(kind string) bool { return strings.Contains(kind, "_iam_") }

// onProject are the roles that may be granted on the whole project without a condition: nobody grants writing a log, or reading
// metrics, on less.
func onProject() []string { return []string{`"roles/logging.logWriter"`, `"roles/monitoring.viewer"`} }

// TooWide returns the grants that no reviewer should have to find.
func TooWide(c *Config) (faults []string) {
	fault := func(address, format string, args ...any) {
		faults = append(faults, address+": "+fmt.Sprintf(format, args...))
	}
	for _, c := range c.all() {
		for _, address := range sortedKeys(c.resources) {
			kind, _, _ := strings.Cut(address, ".")
			b := c.resources[address].Body
			if kind == "google_service_account_key" {
				fault(address, "keys of service accounts are not made")
			}
			if !isGrant(kind) {
				continue
			}
			if !strings.HasSuffix(kind, "_iam_member") {
				fault(address, "takes away what others have granted; use %s_iam_member", kind[:strings.Index(kind, "_iam_")])
			}
			role, member := c.argument(b, "role"), c.argument(b, "member")
			roles := role
			if role == "each.value" {
				roles = c.argument(b, "for_each")
			}
			roles = strings.ReplaceAll(roles, "roles/bigquery.dataEditor", "") // what Pub/Sub asks for, on one table
			for _, wide := range []string{"owner", "editor", "admin"} {
				if strings.Contains(strings.ToLower(roles), wide) {
					fault(address, "%s is more than anything here needs", roles)
				}
			}
			if strings.Contains(member, "allUsers") || strings.Contains(member, "allAuthenticatedUsers") {
				fault(address, "is for everybody")
			}
			if kind == "google_project_iam_member" && block(b, "condition") == nil && !slices.Contains(onProject(), role) {
				fault(address, "%s on the whole project has no condition", role)
			}
		}
	}
	return faults
}
