// Package pybind is the surface of natslease that gopy exports to Python. It translates and decides nothing.
//
// Every export takes integers and byte slices. Most return an answer: bytes whose first byte says what the rest is, see
// wire.go. Times are in nanoseconds. Handles name clients, queues and notifiers; the caller chooses them.
//
// An operation runs in its own goroutine under its timeout. The export that starts it waits for at most slice; what is
// not done by then goes on behind the ticket, a number that the caller has chosen and that Wait and Cancel take. With a
// notifier and a slice of 0 the export only starts the operation, and the notifier tells when it is done; without either
// nobody waits for it, and it has no ticket. Leases stay
// behind their ticket until Taken says that they have arrived: Python may be interrupted before it has read them.
package pybind
