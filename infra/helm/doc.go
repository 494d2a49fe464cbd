// Package helm tests the chart in the folder apss: what it renders is read by the types of Kubernetes itself, so a field
// that does not exist is found without a cluster, and is held against what Autopilot admits and the programs' own settings.
package helm
