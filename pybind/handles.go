package pybind

import "sync"

// table gives values numbers that Python can hold.
type table[T any] struct {
	mu     sync.RWMutex
	last   int64
	values map[int64]T
}

// add puts v behind a number that was never used before.
func (t *table[T]) add(v T) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	t.set(t.last, v)
	return t.last
}

// put puts v behind a number of the caller's.
func (t *table[T]) put(handle int64, v T) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(handle, v)
}

func (t *table[T]) set(handle int64, v T) {
	if t.values == nil {
		t.values = make(map[int64]T)
	}
	t.values[handle] = v
}

func (t *table[T]) get(handle int64) (T, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, ok := t.values[handle]
	return v, ok
}

func (t *table[T]) remove(handle int64) (T, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.values[handle]
	delete(t.values, handle)
	return v, ok
}
