package pybind

// The wire between this package and natslease/_wire.py. Both sides' tests read the files in tests/data/wire.
//
// All numbers are little-endian and eight bytes wide, except the first byte of an answer. A column is n numbers. A blob
// column is n+1 offsets, such that item i is the bytes from offset i to offset i+1. In an answer, offsets are counted
// from the answer's first byte; in a request only their differences matter, and the bytes of a blob column follow each
// other in the order of the columns. No answer is empty.
//
// The first byte of an answer:
//
//	0    done: what the operation returns follows
//	1    error: JSON follows: code, outcome, operation, message, retry_after (seconds), explain
//	2    pending: nothing follows, the operation goes on behind its ticket
//	128  is added when log records wait to be fetched
//
// What operations return:
//
//	numbers   as many as there are
//	leases    n, clock, retry_after, then the columns seq, consumer_seq, attempt, pending, published, expires, then the
//	          blob columns data, ack subject, id, subject, headers, then their bytes
//	any       the length of what follows up to the next column, an answer of leases, then a column with the index of each
//	          lease's queue in the request, and JSON: missing (indices), errors (by index)
//	results   of settling: n, plain. Plain is 1 when every item is settled and not late, and nothing follows.
//	          Else 0, the columns status (an index into statuses), late (0 or 1), expires, error (an index, or -1), and
//	          a JSON array of errors
//	report    of publishing: n, then the columns seq, duplicate (0 or 1), error (an index, or -1), the blob column id,
//	          its bytes, and a JSON array of errors
//	letters   dead letters: a JSON array; data is in base64, headers are pairs, times in nanoseconds since 1970
//	value     JSON
//
// Requests:
//
//	items     to settle: n, the column expires (0 when it is not known), the blob column ack subject, its bytes, and the
//	          reason of a nak or a term to the end
//	returns   to release: n, the column expires, the blob columns ack subject, data, id, subject, headers, then their
//	          bytes. Where only the ack subject is known, the others are empty
//	queues    to reserve from: the column of their handles
//	messages  to publish: n, the blob columns data, id, headers, then their bytes. An empty id means that one is made
//	headers   as many as there are: the length of the name, the name, the length of the value, the value
//	names     of dead letters: a JSON array of stream, consumer, seq and published
//
// Published is in nanoseconds since 1970; expires is of CLOCK_MONOTONIC, and clock is what to add to that for
// nanoseconds since 1970.

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	natslease "github.com/RolnickLab/natslease/core"
)

const (
	answerDone    = 0
	answerError   = 1
	answerPending = 2
	answerLogs    = 128
)

// statuses gives each status its number.
var statuses = []natslease.SettleStatus{
	natslease.Settled, natslease.Gone, natslease.Unknown, natslease.Expired, natslease.Invalid, natslease.Rejected,
}

var errMalformed = errors.New("the request is malformed")

// writer builds an answer.
type writer struct{ b []byte }

func newWriter(size int) *writer {
	return &writer{b: append(make([]byte, 0, size), answerDone)}
}

func (w *writer) number(n int64) { w.b = binary.LittleEndian.AppendUint64(w.b, uint64(n)) }

// offsets writes a blob column whose bytes will begin at start, and returns where they will end.
func (w *writer) offsets(n int, start int, length func(i int) int) int {
	w.number(int64(start))
	for i := range n {
		start += length(i)
		w.number(int64(start))
	}
	return start
}

func encodeNumber(n int64) []byte { return encodeNumbers(n) }

func encodeNumbers(numbers ...int64) []byte {
	w := newWriter(1 + 8*len(numbers))
	for _, n := range numbers {
		w.number(n)
	}
	return w.b
}

func encodeValue(v any) []byte { return append([]byte{answerDone}, mustMarshal(v)...) }

const (
	leaseColumns     = 6
	leaseBlobColumns = 5
)

func encodeLeases(leases []*natslease.Lease, retryAfter time.Duration, now clock) []byte {
	n := len(leases)
	start := 1 + 8*(3+leaseColumns*n+leaseBlobColumns*(n+1))
	size := start
	headerSizes := make([]int, n)
	for i, l := range leases {
		headerSizes[i] = headerSize(l.Header)
		size += len(l.Data) + len(l.AckSubject) + len(l.ID) + len(l.Subject) + headerSizes[i]
	}
	w := newWriter(size)
	w.number(int64(n))
	w.number(now.wall - now.monotonic)
	w.number(int64(retryAfter))
	for _, l := range leases {
		w.number(int64(l.Seq))
	}
	for _, l := range leases {
		w.number(int64(l.ConsumerSeq))
	}
	for _, l := range leases {
		w.number(int64(l.Attempt))
	}
	for _, l := range leases {
		w.number(int64(l.Pending))
	}
	for _, l := range leases {
		w.number(l.Published.UnixNano())
	}
	for _, l := range leases {
		w.number(now.encode(l.Expires))
	}
	start = w.offsets(n, start, func(i int) int { return len(leases[i].Data) })
	start = w.offsets(n, start, func(i int) int { return len(leases[i].AckSubject) })
	start = w.offsets(n, start, func(i int) int { return len(leases[i].ID) })
	start = w.offsets(n, start, func(i int) int { return len(leases[i].Subject) })
	w.offsets(n, start, func(i int) int { return headerSizes[i] })
	for _, l := range leases {
		w.b = append(w.b, l.Data...)
	}
	for _, l := range leases {
		w.b = append(w.b, l.AckSubject...)
	}
	for _, l := range leases {
		w.b = append(w.b, l.ID...)
	}
	for _, l := range leases {
		w.b = append(w.b, l.Subject...)
	}
	for _, l := range leases {
		w.header(l.Header)
	}
	return w.b
}

func headerSize(h natslease.Header) int {
	size := 0
	for name, values := range h {
		for _, value := range values {
			size += 8 + len(name) + 8 + len(value)
		}
	}
	return size
}

// header writes headers by name. Most messages have one: their id.
func (w *writer) header(h natslease.Header) {
	if len(h) > 1 {
		for _, name := range slices.Sorted(maps.Keys(h)) {
			w.headerValues(name, h[name])
		}
		return
	}
	for name, values := range h {
		w.headerValues(name, values)
	}
}

func (w *writer) headerValues(name string, values []string) {
	for _, value := range values {
		w.number(int64(len(name)))
		w.b = append(w.b, name...)
		w.number(int64(len(value)))
		w.b = append(w.b, value...)
	}
}

func encodeResults(results []natslease.SettleResult, kind natslease.SettleKind, now clock) []byte {
	plain := kind != natslease.Extend
	for i := range results {
		plain = plain && results[i].Status == natslease.Settled && !results[i].Late
	}
	n := len(results)
	if plain {
		w := newWriter(17)
		w.number(int64(n))
		w.number(1)
		return w.b
	}
	w := newWriter(17 + 8*4*n)
	w.number(int64(n))
	w.number(0)
	for i := range results {
		w.number(int64(slices.Index(statuses, results[i].Status)))
	}
	for i := range results {
		w.number(boolNumber(results[i].Late))
	}
	for i := range results {
		w.number(now.encode(results[i].Expires))
	}
	var seen errorList
	for i := range results {
		w.number(seen.index(results[i].Err))
	}
	w.b = append(w.b, seen.encode()...)
	return w.b
}

func encodeReport(report natslease.PublishReport) []byte {
	results := report.Results
	n := len(results)
	start := 1 + 8*(1+3*n+n+1)
	size := start
	for i := range results {
		size += len(results[i].ID)
	}
	w := newWriter(size)
	w.number(int64(n))
	for i := range results {
		w.number(int64(results[i].Seq))
	}
	for i := range results {
		w.number(boolNumber(results[i].Duplicate))
	}
	var seen errorList
	for i := range results {
		w.number(seen.index(results[i].Err))
	}
	w.offsets(n, start, func(i int) int { return len(results[i].ID) })
	for i := range results {
		w.b = append(w.b, results[i].ID...)
	}
	w.b = append(w.b, seen.encode()...)
	return w.b
}

func boolNumber(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// errorList collects distinct errors: a lost session is one error of thousands of items.
type errorList struct {
	list    []*natslease.Error
	indices map[*natslease.Error]int64
}

func (e *errorList) index(err *natslease.Error) int64 {
	if err == nil {
		return -1
	}
	if i, ok := e.indices[err]; ok {
		return i
	}
	if e.indices == nil {
		e.indices = make(map[*natslease.Error]int64)
	}
	i := int64(len(e.list))
	e.indices[err] = i
	e.list = append(e.list, err)
	return i
}

func (e *errorList) encode() []byte {
	described := make([]errorText, len(e.list))
	for i, err := range e.list {
		described[i] = describe(err)
	}
	return mustMarshal(described)
}

// reader takes a request apart. After the first failure it returns zeros and keeps err.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int64) []byte {
	if r.err != nil || n < 0 || n > int64(len(r.b)) {
		r.err = errMalformed
		return nil
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) number() int64 {
	b := r.take(8)
	if b == nil {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// count reads n, which has at least one column after it.
func (r *reader) count() int64 {
	n := r.number()
	if n < 0 || n > int64(len(r.b))/8 {
		r.err = errMalformed
		return 0
	}
	return n
}

func (r *reader) column(n int64) []int64 {
	raw := r.take(8 * n)
	if raw == nil {
		return make([]int64, n)
	}
	numbers := make([]int64, n)
	for i := range numbers {
		numbers[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return numbers
}

// end returns the first failure; bytes that are left over are one.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errMalformed
	}
	return r.err
}

// blobs cuts the bytes that follow by the differences of offsets.
func (r *reader) blobs(offsets []int64) [][]byte {
	items := make([][]byte, len(offsets)-1)
	for i := range items {
		items[i] = r.take(offsets[i+1] - offsets[i])
	}
	return items
}

func decodeItems(body []byte, now clock) (items []natslease.SettleItem, reason string, err error) {
	r := &reader{b: body}
	n := r.count()
	expires := r.column(n)
	subjects := r.blobs(r.column(n + 1))
	if r.err != nil {
		return nil, "", r.err
	}
	items = make([]natslease.SettleItem, n)
	for i := range items {
		items[i] = natslease.SettleItem{AckSubject: string(subjects[i]), Expires: now.decode(expires[i])}
	}
	return items, string(r.b), nil
}

// decodeReturns does not copy data: body must not change while it is in use.
func decodeReturns(body []byte, now clock) ([]natslease.SettleItem, error) {
	r := &reader{b: body}
	n := r.count()
	expires := r.column(n)
	var offsets [leaseBlobColumns][]int64
	for i := range offsets {
		offsets[i] = r.column(n + 1)
	}
	if r.err != nil {
		return nil, r.err
	}
	var blobs [leaseBlobColumns][][]byte
	for i := range blobs {
		blobs[i] = r.blobs(offsets[i])
	}
	items := make([]natslease.SettleItem, n)
	for i := range items {
		item := &items[i]
		*item = natslease.SettleItem{AckSubject: string(blobs[0][i]), Expires: now.decode(expires[i])}
		if len(blobs[3][i]) == 0 {
			continue
		}
		ack, err := natslease.ParseAckSubject(item.AckSubject)
		if err != nil {
			continue // Settle says so, for this item
		}
		header, err := decodeHeader(blobs[4][i])
		if err != nil {
			return nil, err
		}
		item.Lease = &natslease.Lease{
			AckSubject: item.AckSubject, Subject: string(blobs[3][i]), Data: blobs[1][i], Header: header, ID: string(blobs[2][i]),
			Attempt: int(ack.Delivered), Seq: ack.StreamSeq, ConsumerSeq: ack.ConsumerSeq, Pending: ack.Pending,
			Published: ack.Published, Expires: item.Expires,
		}
	}
	return items, r.end()
}

func encodeAny(report natslease.AnyReport, asked []*natslease.Queue, now clock) []byte {
	leases := encodeLeases(report.Leases, report.RetryAfter, now)
	// The same queue may have been asked for more than once.
	index := make(map[*natslease.Queue]int64, len(asked))
	for i, q := range asked {
		index[q] = int64(i)
	}
	w := newWriter(9 + len(leases) + 8*len(report.Leases))
	w.number(int64(len(leases)))
	w.b = append(w.b, leases...)
	for _, l := range report.Leases {
		w.number(index[l.Queue()])
	}
	rest := struct {
		Missing []int64             `json:"missing"`
		Errors  map[int64]errorText `json:"errors"`
	}{Errors: make(map[int64]errorText)}
	for _, q := range report.Missing {
		rest.Missing = append(rest.Missing, index[q])
	}
	for q, err := range report.Errors {
		rest.Errors[index[q]] = describe(err)
	}
	w.b = append(w.b, mustMarshal(rest)...)
	return w.b
}

func decodeQueues(body []byte) ([]*natslease.Queue, error) {
	r := &reader{b: body}
	asked := make([]*natslease.Queue, 0, len(body)/8)
	for len(r.b) > 0 && r.err == nil {
		handle := r.number()
		q, ok := queues.get(handle)
		if !ok && r.err == nil {
			return nil, unknownHandle("queue", handle)
		}
		asked = append(asked, q)
	}
	return asked, r.err
}

// decodeMessages does not copy data: body must not change while they are in use.
func decodeMessages(body []byte) ([]natslease.Message, error) {
	r := &reader{b: body}
	n := r.count()
	data, ids, headers := r.column(n+1), r.column(n+1), r.column(n+1)
	if r.err != nil {
		return nil, r.err
	}
	messages := make([]natslease.Message, n)
	for i, b := range r.blobs(data) {
		messages[i].Data = b
	}
	for i, b := range r.blobs(ids) {
		messages[i].ID = string(b)
	}
	for i, b := range r.blobs(headers) {
		header, err := decodeHeader(b)
		if err != nil {
			return nil, err
		}
		messages[i].Header = header
	}
	return messages, r.end()
}

func decodeHeader(b []byte) (natslease.Header, error) {
	if len(b) == 0 {
		return nil, nil
	}
	header := make(natslease.Header)
	r := &reader{b: b}
	for len(r.b) > 0 && r.err == nil {
		name := string(r.take(r.number()))
		value := string(r.take(r.number()))
		header[name] = append(header[name], value)
	}
	return header, r.err
}
