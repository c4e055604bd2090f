package pybind

import (
	"context"
	"slices"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

// giveBackTimeout bounds the giving back of tasks that nobody took.
const giveBackTimeout = 5 * time.Second

// onQueue runs an operation of the queue with this handle.
func onQueue(c call, handle int64, do func(ctx context.Context, q *natslease.Queue) ([]byte, func())) []byte {
	q, ok := queues.get(handle)
	if !ok {
		return encodeError(unknownHandle("queue", handle))
	}
	return run(c, func(ctx context.Context) ([]byte, func()) { return do(ctx, q) })
}

// Reserve returns leases.
func Reserve(ticket, timeout, slice, notifier, queue, n, wait int64) (answer []byte) {
	defer rescue(&answer)
	q, ok := queues.get(queue)
	if !ok {
		return encodeError(unknownHandle("queue", queue))
	}
	c := call{ticket, timeout, slice, notifier}
	left := leftOf(wait)
	reserve := func(ctx context.Context) ([]byte, func(), bool) {
		leases, err := q.Reserve(ctx, int(n), left())
		switch {
		case err != nil:
			return encodeError(err), nil, natslease.CodeOf(err) == natslease.CodeCanceled
		case len(leases) == 0:
			return encodeLeases(nil, q.RetryAfter(), readClock()), nil, false
		}
		return encodeLeases(leases, 0, readClock()), func() { giveBack(q, leases) }, false
	}
	return runHere(c, reserve)
}

// leftOf tells how much is left of a wait that begins now: the call itself may begin later, or again.
func leftOf(wait int64) func() time.Duration {
	until := time.Now().Add(time.Duration(wait))
	return func() time.Duration { return max(time.Until(until), min(time.Duration(wait), 0)) }
}

// ReserveAny takes queues of the client and returns any.
func ReserveAny(ticket, timeout, slice, notifier, client, n, wait int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	c, ok := clients.get(client)
	if !ok {
		return encodeError(unknownHandle("client", client))
	}
	asked, err := decodeQueues(body)
	if err != nil {
		return encodeError(err)
	}
	left := leftOf(wait)
	reserve := func(ctx context.Context) ([]byte, func(), bool) {
		report, err := c.ReserveAny(ctx, asked, int(n), left())
		if err != nil {
			return encodeError(pythonNames(err)), nil, natslease.CodeOf(err) == natslease.CodeCanceled
		}
		answer := encodeAny(report, asked, readClock())
		if len(report.Leases) == 0 {
			return answer, nil, false
		}
		return answer, func() {
			byQueue := make(map[*natslease.Queue][]*natslease.Lease)
			for _, l := range report.Leases {
				byQueue[l.Queue()] = append(byQueue[l.Queue()], l)
			}
			for q, leases := range byQueue {
				giveBack(q, leases)
			}
		}, false
	}
	if how := (call{ticket, timeout, slice, notifier}); wait == 0 {
		return runHere(how, reserve)
	} else {
		return run(how, once(reserve)) // done again it would look at all queues again
	}
}

func giveBack(q *natslease.Queue, leases []*natslease.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
	defer cancel()
	items := make([]natslease.SettleItem, len(leases))
	for i, l := range leases {
		items[i] = natslease.SettleItem{AckSubject: l.AckSubject, Expires: l.Expires, Lease: l}
	}
	// What cannot be given back comes back after ack_wait.
	_, _ = q.Settle(ctx, natslease.Settlement{Kind: natslease.Release}, items)
}

// Settle takes items and returns results. Kind is 1 ack, 2 nak (after delay, with a reason), 4 extend, 5 term (with a reason).
func Settle(ticket, timeout, slice, notifier, queue, kind, delay int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	now := readClock()
	items, reason, err := decodeItems(body, now)
	if err != nil {
		return encodeError(err)
	}
	q, ok := queues.get(queue)
	if !ok {
		return encodeError(unknownHandle("queue", queue))
	}
	settlement := natslease.Settlement{Kind: natslease.SettleKind(kind), Delay: time.Duration(delay), Reason: reason}
	c := call{ticket, timeout, slice, notifier}
	settle := func(ctx context.Context) ([]byte, func(), bool) {
		results, err := q.Settle(ctx, settlement, items)
		if err != nil {
			return encodeError(err), nil, true
		}
		unknown := func(r natslease.SettleResult) bool { return r.Status == natslease.Unknown }
		return encodeResults(results, settlement.Kind, now), nil, slices.ContainsFunc(results, unknown)
	}
	if settlement.Kind == natslease.Ack || settlement.Kind == natslease.Extend {
		return runHere(c, settle)
	}
	// What else is repeated could meet the task's next holder.
	return run(c, once(settle))
}

// Release takes returns and returns results.
func Release(ticket, timeout, slice, notifier, queue int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	now := readClock()
	items, err := decodeReturns(body, now)
	if err != nil {
		return encodeError(err)
	}
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		results, err := q.Settle(ctx, natslease.Settlement{Kind: natslease.Release}, items)
		if err != nil {
			return encodeError(err), nil
		}
		return encodeResults(results, natslease.Release, now), nil
	})
}

// Publish takes messages and returns a report.
func Publish(ticket, timeout, slice, notifier, queue int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	messages, err := decodeMessages(body)
	if err != nil {
		return encodeError(err)
	}
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		report, err := q.Publish(ctx, messages)
		if err != nil {
			return encodeError(err), nil
		}
		return encodeReport(report), nil
	})
}

// Ensure creates the queue and returns what the server says of it. Conflict is "keep", "update" or "error".
func Ensure(ticket, timeout, slice, notifier, queue int64, conflict []byte) (answer []byte) {
	defer rescue(&answer)
	rule := natslease.Conflict(conflict)
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		return info(q.Ensure(ctx, rule))
	})
}

// Info returns what the server says of the queue.
func Info(ticket, timeout, slice, notifier, queue int64) (answer []byte) {
	defer rescue(&answer)
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		return info(q.Info(ctx))
	})
}

// Purge returns how many messages were removed.
func Purge(ticket, timeout, slice, notifier, queue int64) (answer []byte) {
	defer rescue(&answer)
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		return value(q.Purge(ctx))
	})
}

// Delete returns whether there was anything to delete.
func Delete(ticket, timeout, slice, notifier, queue int64) (answer []byte) {
	defer rescue(&answer)
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		return value(q.Delete(ctx))
	})
}

// DeleteConsumer returns whether there was a consumer to delete.
func DeleteConsumer(ticket, timeout, slice, notifier, queue int64) (answer []byte) {
	defer rescue(&answer)
	return onQueue(call{ticket, timeout, slice, notifier}, queue, func(ctx context.Context, q *natslease.Queue) ([]byte, func()) {
		return value(q.DeleteConsumer(ctx))
	})
}

func info(i natslease.QueueInfo, err error) ([]byte, func()) { return value(describeInfo(i), err) }

func value[T any](v T, err error) ([]byte, func()) {
	if err != nil {
		return encodeError(pythonNames(err)), nil
	}
	return encodeValue(v), nil
}

// Keep has leases extended until they are settled, maxHold is over, or Beat was not called for heartbeat, unless that is
// 0. It takes items, and does no I/O.
func Keep(queue, maxHold, heartbeat int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	return withItems(queue, body, func(q *natslease.Queue, item natslease.SettleItem) error {
		return q.KeepBeating(item, time.Duration(maxHold), time.Duration(heartbeat))
	})
}

// Beat says that whoever has the leases is at work; without any, all kept leases of the queue. It takes items, and does
// no I/O.
func Beat(queue int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	q, ok := queues.get(queue)
	if !ok {
		return encodeError(unknownHandle("queue", queue))
	}
	items, _, err := decodeItems(body, readClock())
	if err != nil {
		return encodeError(err)
	}
	subjects := make([]string, len(items))
	for i := range items {
		subjects[i] = items[i].AckSubject
	}
	q.Beat(subjects...)
	return []byte{answerDone}
}

// Kept returns when each of the items runs out, of CLOCK_MONOTONIC; 0 for one that is not kept. It does no I/O.
func Kept(queue int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	now := readClock()
	var until []int64
	answer = withItems(queue, body, func(q *natslease.Queue, item natslease.SettleItem) error {
		until = append(until, now.encode(q.KeptUntil(item.AckSubject)))
		return nil
	})
	if answer[0] != answerDone {
		return answer
	}
	return encodeNumbers(until...)
}

// Unkeep lets leases run out as they would have. It takes items, and does no I/O.
func Unkeep(queue int64, body []byte) (answer []byte) {
	defer rescue(&answer)
	return withItems(queue, body, func(q *natslease.Queue, item natslease.SettleItem) error {
		q.Unkeep(item.AckSubject)
		return nil
	})
}

func withItems(queue int64, body []byte, do func(q *natslease.Queue, item natslease.SettleItem) error) []byte {
	q, ok := queues.get(queue)
	if !ok {
		return encodeError(unknownHandle("queue", queue))
	}
	items, _, err := decodeItems(body, readClock())
	if err != nil {
		return encodeError(err)
	}
	for i := range items {
		if err := do(q, items[i]); err != nil {
			return encodeError(err)
		}
	}
	return []byte{answerDone}
}
