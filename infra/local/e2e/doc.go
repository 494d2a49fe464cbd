// Package e2e proves APSS on a real Kubernetes cluster. It has tests only; `make e2e` runs them.
//
// Any cluster will do: KUBECONFIG names it, and images get there by APSS_E2E_LOAD, a command that is called with an
// image's name, a folder with all its files and its entrypoint as JSON, or, where that cannot be (a registry, kind), are there already under the
// name in APSS_E2E_IMAGE. Without these the tests are skipped and say so. The programs come from bin/, built by make,
// and so does helm, which installs the chart; its images are loaded too, so those tests want APSS_E2E_LOAD.
//
// Every test has a namespace of its own, gone when it ends; what has none (roles) is named after it. Tests do not touch
// what others run in the cluster, and bear that it is there.
//
// The relay's tests run Pub/Sub in their own process and speak to a Service's address, so they want to be on a node; pods reach
// them at the address that has the way to the API server, or at APSS_E2E_HOST.
//
// The pods run nothing but our programs and witness, which is the application to be seen and an independent eye.
package e2e
