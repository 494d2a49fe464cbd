// Package framework names the server of the functions framework, so that go.mod has it. Google's builder writes a main that
// imports it and takes it from vendor/, where only what is imported is; nothing here imports this package.
package framework

import _ "github.com/GoogleCloudPlatform/functions-framework-go/funcframework" // the builder's main does
