// Package standin is what the stand-ins of receivers have in common: the switches for everything that a receiver can do
// to those who send ([Switches]), and the memory of what a person would see there ([Board]). Each receiver is a folder
// of its own, which keeps to its vendor's documents: paths, credentials, limits, answers.
package standin
