// Package rulebook reads rules and their fixtures from disk and answers what a person asks of them: are they sound
// ([Check]), do they do what they should ([Test]), what would they have said of recorded events ([Eval]), what do they
// need ([Explain]), which are there ([List]).
//
// Rules, filters and exceptions are files that end in .yml or .yaml, fixtures those that end in .test.yml or .test.yaml
// (see package fixture). Folders are read with what is below them, except for hidden ones: a mounted ConfigMap keeps its
// versions in those.
//
// Files and events may be hostile: sizes are bounded, one fault never stops the rest, and what is printed of them has no
// control characters that a terminal would obey.
package rulebook
