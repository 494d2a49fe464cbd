package rulebook

// Files reads the files of rules at paths and below, in the order of their names, and hands each to use. The error is
// that something could not be read; the others are handed out all the same.
func Files(paths []string, use func(name string, data []byte)) error {
	return walk(paths, func(name string) bool { return isYAML(name) && !isFixture(name) }, use)
}
