// Package e2e proves APSS on a real Kubernetes cluster. It has tests only; `make e2e` runs them.
//
// Any cluster will do: KUBECONFIG names it, and images get there by APSS_E2E_LOAD, a command that is called with an
// image's name, a folder with all its files and its entrypoint as JSON, or, where that cannot be (a registry, kind), are there already under the
// name in APSS_E2E_IMAGE. Without these the tests are skipped and say so. The programs come from bin/, built by make,
// and so does helm, which installs the chart; its images are loaded too, so those tests want APSS_E2E_LOAD. Images are called
// after what is in them: those that a node has are not loaded again.
//
// Every test has a namespace of its own, gone when it ends; what has none (roles) is named after it. Tests do not touch
// what others run in the cluster, and bear that it is there. What a run left behind that was killed, the next one removes.
//
// Pub/Sub, the functions and the stand-ins of who receives run in and beside the tests, which want to be on a node; pods reach
// them at the address that has the way to the API server, or at APSS_E2E_HOST.
//
// The pods run nothing but our programs and witness, which is the application to be seen, the intruder in it and an independent
// eye. The intruder does what the test says over a connection, so a deed is done when the test says so, and may have a number.
//
// Figures are printed as lines "BENCH e2e_<name> <value> <unit>". APSS_E2E_WHOLE=1 makes the outage of Pub/Sub a minute long,
// measures for longer and more often, and runs no test beside another: figures of such a run on a quiet machine are worth
// quoting. APSS_E2E_FROM is the revision to upgrade from.
package e2e
