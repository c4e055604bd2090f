// Package pybind is the surface of natslease that gopy exports to Python.
package pybind

// Echo returns a copy of b.
func Echo(b []byte) []byte { return append([]byte(nil), b...) }
