// Package e2e proves APSS on a real Kubernetes cluster. It has tests only; `make e2e` runs them.
//
// Any cluster will do: KUBECONFIG names it, and images get there by APSS_E2E_LOAD, a command that is called with an
// image's name, a folder with all its files and its entrypoint as JSON, or, where that cannot be (a registry, kind), are there already under the
// name in APSS_E2E_IMAGE. Without these the tests are skipped and say so. The programs come from bin/, built by make.
//
// Every test has a namespace of its own, gone when it ends; what has none (roles) is named after it. Tests do not touch
// what others run in the cluster, and bear that it is there.
//
// The pods run nothing but our programs and witness, which is the application to be seen and an independent eye.
package e2e
