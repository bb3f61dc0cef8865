//go:build tools

// The end-to-end suite is a test of Kubernetes and no program: go.mod can name it only by an import.
package tools

import _ "k8s.io/kubernetes/test/e2e"
