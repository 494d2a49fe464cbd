// Package policy reads infra/terraform without terraform, and holds it against what must be true of it and against the code
// that it deploys. Its tests are the policy; what it exports to them is small: [Load] parses a folder, [Config.Value]
// evaluates a local, a resource's argument or an output as terraform would plan it, the functions that return faults are
// the rules.
//
// Promises: every rule returns all its faults, each with the place, and has a mutation in the tests by which it fails.
//
// Limits: the provider's schema is not known here: what an argument is called and may hold is for terraform validate. What
// only Google knows (a function's address, a project's number) is made up, see computed. Functions of Terraform that
// the configuration does not use are not there.
package policy
