package pybind

import (
	"maps"
	"slices"
	"sync"
)

// table has values behind numbers, which Python chooses: so it can end what it was interrupted while making.
type table[T any] struct {
	mu     sync.RWMutex
	values map[int64]T
}

func (t *table[T]) put(handle int64, v T) {
	t.mu.Lock()
	defer t.mu.Unlock()
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

func (t *table[T]) all() []T {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Values(t.values))
}

func (t *table[T]) size() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return int64(len(t.values))
}
