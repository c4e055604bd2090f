package fleet

import "context"

// RegisterProcess is Join for a process that is not this one, without what goes on afterwards.
func (f *Fleet) RegisterProcess(ctx context.Context, id Identity, details Details, pid int) (Registration, error) {
	return f.register(ctx, id, details, &process{Host: DefaultHost(), PID: pid, Started: startOf(pid)})
}
