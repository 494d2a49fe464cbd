// Package setting reads a program's settings from the environment: into a struct, with defaults, everything that is
// wrong reported at once, unknown keys under the program's prefixes refused.
package setting

// Load fills into, a pointer to a struct with go-envconfig tags, from environ (as os.Environ returns it), calls its
// Validate method where it has one, and refuses keys that start with one of prefixes and are no setting, with a
// suggestion; keys that Kubernetes sets for services (APSS_RELAY_SERVICE_HOST, APSS_RELAY_PORT_8444_TCP_ADDR, ...) are
// let pass. The error joins every fault, each on a line of its own that names the key, what is wrong and what is right.
func Load(environ []string, prefixes []string, into any) error { panic("unwritten") }
